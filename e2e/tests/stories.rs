//! The whole story of each sample, told by the real programs and the real kubectl: a request, its
//! change, a crash of either side in the middle, and its removal.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    process::Command,
};

use muster_e2e::{Agent, Executor, Hub, Kubectl, eventually, free_port, has_part, sample, scratch};

const HEALTH: &str = r#"jsonpath={.status.conditions[?(@.type=="Healthy")].reason}"#;
const HEALTH_MESSAGE: &str = r#"jsonpath={.status.conditions[?(@.type=="Healthy")].message}"#;
const RECONCILED_MESSAGE: &str =
    r#"jsonpath={.status.conditions[?(@.type=="Reconciled")].message}"#;

#[test]
fn datadog_stack_on_the_hubs_own_api_with_processes() {
    datadog_stack(Executor::Process);
}

#[test]
fn datadog_stack_on_the_hubs_own_api_with_podman() {
    if !has_part("MUSTER_TEST_IMAGE") {
        return;
    }
    datadog_stack(Executor::Podman);
}

fn datadog_stack(executor: Executor) {
    let scratch = scratch();
    let dir = scratch.path();
    let mut hub = Hub::start(dir, executor);
    let kubectl = hub.kubectl();
    let labels = ["platform=kubernetes"];
    let target = hub.kubeconfig().to_owned();
    let mut agent = Agent::join(&hub, dir, "cluster-1", &labels, &["kubernetes"], Some(&target));

    kubectl.ok(&["apply", "-f", &path("datadog-stack/promise.yaml")]);
    kubectl.wait("promise/datadog-stack", "Available");
    // The dependencies arrive on the destination: the CRDs of what is rendered.
    kubectl.until(&["get", "crd", "helmreleases.helm.toolkit.fluxcd.io"], |_| true);

    kubectl.ok(&["apply", "-f", &path("datadog-stack/request.yaml")]);
    let request = "datadogstack/monitoring";
    kubectl.wait(request, "Reconciled");
    let table = kubectl.ok(&["get", request]);
    assert!(table.contains("DESTINATION") && table.contains("cluster-1"), "{table}");
    kubectl.until(&["get", request, "-o", HEALTH], |health| health == "Progressing");
    let why = kubectl.ok(&["get", request, "-o", HEALTH_MESSAGE]);
    assert!(why.contains("no controller has reported yet") && why.contains("HelmRelease"), "{why}");
    let table = kubectl.ok(&["get", request]);
    assert!(table.contains("Progressing: no controller has reported yet"), "{table}");
    let minimal = kubectl.ok(&["get", "helmreleases", "-A", "-o", "yaml"]);
    assert!(
        minimal.contains("clusterAgent") && minimal.contains("portEnabled: false"),
        "{minimal}"
    );
    let secret = kubectl.ok(&["get", "externalsecrets", "-A", "-o", "yaml"]);
    assert!(secret.contains("datadog/dev/api-keys"), "{secret}");
    assert!(secret.contains("aws-secrets-manager"), "{secret}");

    // Both sides die between the change and its arrival.
    agent.crash();
    kubectl.ok(&["apply", "-f", &path("datadog-stack/request-standard.yaml")]);
    hub.crash_and_restart();
    agent.restart();
    kubectl.until(&["get", "helmreleases", "-A", "-o", "yaml"], |yaml| {
        yaml.contains("portEnabled: true")
    });
    kubectl.wait(request, "Reconciled");

    kubectl.ok(&["delete", request, "--timeout=120s"]);
    kubectl.gone(request);
    for gone in ["helmreleases", "helmrepositories", "externalsecrets"] {
        let left = kubectl.ok(&["get", gone, "-A", "-o", "name"]);
        assert_eq!(left, "", "left behind");
    }
    kubectl.ok(&["delete", "promise", "datadog-stack", "--timeout=120s"]);
    kubectl.gone("crd/datadogstacks.platform.srekubecraft.io");
    kubectl.gone("crd/helmreleases.helm.toolkit.fluxcd.io");
}

#[test]
fn a_service_on_a_vm_is_kept_well_with_and_without_its_hub() {
    let scratch = scratch();
    let dir = scratch.path();
    let mut hub = Hub::start(dir, Executor::Process);
    let kubectl = hub.kubectl();
    let mut agent = Agent::join(&hub, dir, "vm-1", &["platform=vm"], &["shell"], None);
    kubectl.ok(&["apply", "-f", &path("vm-service/promise.yaml")]);
    kubectl.wait("promise/web-service", "Available");

    let port = free_port();
    kubectl.apply(&web_service(port, "Hello"));
    let request = "webservice/hello";
    kubectl.wait(request, "Reconciled");
    kubectl.wait(request, "Healthy");
    assert_eq!(http_get(port).unwrap(), "Hello\n");
    let table = kubectl.ok(&["get", request]);
    assert!(table.contains("vm-1") && table.contains("Healthy"), "{table}");
    let first = service_pid(dir);

    // Killed: told, then mended.
    kill_9(first);
    kubectl.until(&["get", request, "-o", HEALTH], |health| health == "Degraded");
    kubectl.until(&["get", request, "-o", HEALTH], |health| health == "Healthy");
    let second = service_pid(dir);
    assert_ne!(first, second);

    // It survives its agent, and is not started twice when the agent is back.
    agent.crash();
    assert_eq!(http_get(port).unwrap(), "Hello\n");
    agent.restart();
    agent.wait_connected(&hub);
    assert_eq!(services(dir), vec![second], "started twice");

    // With the hub stopped the agent still mends it, even if it was restarted meanwhile.
    hub.stop();
    agent.crash();
    agent.restart();
    kill_9(second);
    eventually("the repair", || http_get(port).map(drop));
    assert_eq!(services(dir).len(), 1);

    // A change made while the agent is away arrives when it is back.
    agent.crash();
    hub.restart();
    kubectl.apply(&web_service(port, "Changed"));
    kubectl.until(&["get", request, "-o", RECONCILED_MESSAGE], |why| why.contains("vm-1"));
    agent.restart();
    eventually("the change", || match http_get(port) {
        Ok(body) if body == "Changed\n" => Ok(()),
        other => Err(format!("{other:?}")),
    });
    kubectl.wait(request, "Reconciled");

    // Removal waits for an agent that is away, and says so.
    agent.crash();
    kubectl.ok(&["delete", request, "--wait=false"]);
    kubectl.until(&["get", request, "-o", "yaml"], |yaml| yaml.contains("destination vm-1"));
    assert!(http_get(port).is_ok(), "removed without its agent");
    agent.restart();
    kubectl.gone(request);
    eventually("the service to be gone", || match http_get(port) {
        Ok(body) => Err(body),
        Err(_) => Ok(()),
    });
    assert_eq!(services(dir), Vec::<u32>::new());
}

#[test]
fn a_host_that_never_comes_back_is_given_up_listing_what_stays_behind() {
    let scratch = scratch();
    let dir = scratch.path();
    let hub = Hub::start(dir, Executor::Process);
    let kubectl = hub.kubectl();
    let mut agent = Agent::join(&hub, dir, "vm-1", &["platform=vm"], &["shell"], None);
    kubectl.ok(&["apply", "-f", &path("vm-service/promise.yaml")]);
    kubectl.wait("promise/web-service", "Available");
    let port = free_port();
    kubectl.apply(&web_service(port, "Hello"));
    kubectl.wait("webservice/hello", "Reconciled");
    agent.crash();
    kubectl.ok(&["delete", "webservice/hello", "--wait=false"]);
    kubectl.until(&["get", "webservice/hello", "-o", "yaml"], |yaml| {
        yaml.contains("muster agents remove vm-1 --abandon")
    });

    let removed = hub.muster(&["agents", "remove", "vm-1", "--abandon"]).output().unwrap();
    let said = String::from_utf8(removed.stdout).unwrap();
    assert!(removed.status.success(), "{}", String::from_utf8_lossy(&removed.stderr));
    assert!(said.contains("stays behind on vm-1: request default/hello of promise"), "{said}");
    kubectl.gone("webservice/hello");
    kubectl.gone("destination/vm-1");
    assert_eq!(http_get(port).unwrap(), "Hello\n", "what was given up is not touched");
    kill_9(service_pid(dir));
}

#[test]
fn infrastructure_by_terraform_keeps_its_state_over_crashes() {
    if !has_part("MUSTER_TERRAFORM") {
        return;
    }
    let scratch = scratch();
    let dir = scratch.path();
    let mut hub = Hub::start(dir, Executor::Process);
    let kubectl = hub.kubectl();
    let labels = ["platform=terraform"];
    let mut agent = Agent::join(&hub, dir, "tf-1", &labels, &["terraform"], None);
    kubectl.ok(&["apply", "-f", &path("infrastructure/promise.yaml")]);
    kubectl.wait("promise/infrastructure", "Available");
    kubectl.ok(&["apply", "-f", &path("infrastructure/request.yaml")]);
    let request = "network/backbone";
    kubectl.wait(request, "Reconciled");
    let output = |of: &Kubectl, path: &str| {
        of.ok(&["get", request, "-o", &format!("jsonpath={{.status.outputs{path}}}")])
    };
    let outputs = output(&kubectl, "");
    assert!(outputs.contains("10.16.0.0/16") && outputs.contains("10.16.1.0/24"), "{outputs}");
    assert!(!outputs.contains("router"), "a sensitive output was reported: {outputs}");
    let created = output(&kubectl, ".network_id");

    // Both are killed while the change is under way; what exists already is not made anew.
    kubectl.ok(&["patch", request, "--type=merge", "-p", r#"{"spec":{"subnets":5}}"#]);
    hub.crash();
    agent.crash();
    hub.restart();
    agent.restart();
    kubectl.until(&["get", request, "-o", "jsonpath={.status.outputs.subnets}"], |subnets| {
        subnets.contains("10.16.4.0/24")
    });
    kubectl.wait(request, "Reconciled");
    assert_eq!(output(&kubectl, ".network_id"), created, "the network was made anew");

    kubectl.ok(&["delete", request, "--timeout=120s"]);
    for state in find(&agent.state_dir(), "terraform.tfstate") {
        let text = fs::read_to_string(&state).unwrap();
        assert!(text.contains(r#""resources": []"#), "{}: {text}", state.display());
    }
}

fn path(of: &str) -> String {
    sample(of).display().to_string()
}

fn web_service(port: u16, greeting: &str) -> String {
    let yaml = fs::read_to_string(sample("vm-service/request.yaml")).unwrap();
    let yaml = yaml.replace("port: 18080", &format!("port: {port}"));
    yaml.replace("greeting: Hello from Muster", &format!("greeting: {greeting}"))
}

fn http_get(port: u16) -> Result<String, String> {
    let get = || {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        std::io::Result::Ok(answer)
    };
    let answer = get().map_err(|error| error.to_string())?;
    let (_, body) = answer.split_once("\r\n\r\n").ok_or(answer.clone())?;
    Ok(body.to_owned())
}

/// The service's pid, from the file that it wrote.
fn service_pid(dir: &Path) -> u32 {
    eventually("the service's pid file", || {
        let files = find(&dir.join("vm-1"), "pid");
        let text = files.first().and_then(|file| fs::read_to_string(file).ok());
        let pid = text.as_deref().and_then(|text| text.split(' ').next()?.parse().ok());
        pid.ok_or_else(|| format!("{files:?}"))
    })
}

/// Every running process of the service below this directory.
fn services(dir: &Path) -> Vec<u32> {
    let pattern = format!("service.pl {}", dir.display());
    let output = Command::new("pgrep").args(["-f", &pattern]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().lines().map(|pid| pid.parse().unwrap()).collect()
}

fn kill_9(pid: u32) {
    assert!(Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap().success());
}

fn find(dir: &Path, name: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(find(&path, name));
        } else if path.file_name().is_some_and(|file| file == name) {
            found.push(path);
        }
    }
    found
}
