//! The appliers with real scripts, a real terraform and a real kube-apiserver.

#[path = "real/cluster.rs"]
mod cluster;
#[path = "real/kubernetes.rs"]
mod kubernetes;
#[path = "real/scene.rs"]
mod scene;
#[path = "real/shell.rs"]
mod shell;
#[path = "real/terraform.rs"]
mod terraform;
