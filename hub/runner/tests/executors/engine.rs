//! The podman executor, where podman and Debian's busybox-static are installed: the image is made
//! from that. Elsewhere these tests are left out, aloud.

use std::{path::Path, process::Command, time::Duration};

use muster_runner::{
    ContainerLaunch, ExecutorKind, LaunchError, Limits, PodLaunch, Pull, Security,
};
use tokio_util::sync::CancellationToken;

use crate::rig::{GREETING, Rig, Test, mount, run_all, script};

const IMAGE: &str = "localhost/muster-runner-test:1";
const BUSYBOX: &str = "/bin/busybox";

pub(crate) async fn run(filter: &[String]) -> usize {
    macro_rules! tests {
        ($($name:ident),* $(,)?) => {
            [$((stringify!($name), {
                fn run() -> std::pin::Pin<Box<dyn Future<Output = ()>>> { Box::pin($name()) }
                run as _
            })),*]
        };
    }
    let has_podman = Command::new("podman").arg("--version").output().is_ok();
    if !has_podman || !Path::new(BUSYBOX).exists() {
        println!("podman tests are left out: install podman and busybox-static");
        return 0;
    }
    make_image();
    let tests: [Test; 8] = tests![
        podman_runs_an_image_and_keeps_what_it_prints,
        podman_shares_volumes_as_mounted,
        podman_pods_reach_the_api_and_nothing_else,
        podman_names_an_image_that_is_not_there,
        podman_tells_a_missing_program_from_a_failing_one,
        podman_stops_by_force_after_the_grace,
        podman_keeps_its_limits,
        podman_leaves_nothing_behind,
    ];
    run_all(&tests, filter).await
}

fn make_image() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("bin")).unwrap();
    std::fs::copy(BUSYBOX, dir.path().join("bin/busybox")).unwrap();
    for name in
        ["sh", "cat", "echo", "id", "sleep", "touch", "head", "tail", "ls", "nc", "hostname", "env"]
    {
        std::os::unix::fs::symlink("busybox", dir.path().join("bin").join(name)).unwrap();
    }
    let text = format!("tar -C {} -c . | podman import --quiet - {IMAGE}", dir.path().display());
    let output = Command::new("sh").arg("-c").arg(text).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

async fn rig() -> Rig {
    Rig::new(ExecutorKind::Podman).await
}

fn in_image(text: &str) -> ContainerLaunch {
    ContainerLaunch {
        image: IMAGE.to_owned(),
        pull: Pull::Never,
        env: [("PATH".to_owned(), "/bin".to_owned())].into(),
        ..script(text)
    }
}

async fn podman_runs_an_image_and_keeps_what_it_prints() {
    let rig = rig().await;
    let mut container = in_image("echo out; echo err >&2; echo \"$LINES\"; hostname; exit 3");
    container.env.insert("LINES".to_owned(), "two\nlines".to_owned());
    let (exit, log) = rig.run(container).await.unwrap();
    assert_eq!(exit.code, 3);
    let mut lines: Vec<&str> = log.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["err", "lines", "out", "the-pod", "two"]);
}

async fn podman_shares_volumes_as_mounted() {
    let rig = rig().await;
    let volume = rig.volume("shared");
    let mut first = in_image("echo one > /kratix/output/b");
    first.security.user = Some(1234);
    first.mounts = vec![mount(volume.clone(), "/kratix/output", false)];
    assert_eq!(rig.run(first).await.unwrap().0.code, 0);
    let mut second = in_image("cat /in/b; id -u; touch /in/c");
    second.mounts = vec![mount(volume, "/in", true)];
    let (exit, log) = rig.run(second).await.unwrap();
    assert_ne!(exit.code, 0);
    // Two pipes carry the two outputs, so either may come first.
    let said = |line: &str| log.lines().any(|found| found == line);
    assert!(said("one") && said("0") && log.contains("Read-only"), "{log}");
}

async fn podman_pods_reach_the_api_and_nothing_else() {
    let rig = rig().await;
    let hosts = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = hosts.local_addr().unwrap().port();
    let text = format!(
        "nc 127.0.0.1 6443 </dev/null; echo; for a in '127.0.0.1 {port}' '1.1.1.1 53'; do \
         nc -w 2 $a </dev/null 2>/dev/null && echo reached || echo refused; done"
    );
    let (_, log) = rig.run(in_image(&text)).await.unwrap();
    assert_eq!(log, format!("{GREETING}\nrefused\nrefused\n"));
}

async fn podman_names_an_image_that_is_not_there() {
    let rig = rig().await;
    let mut container = in_image("true");
    container.image = "localhost/not-there:9".to_owned();
    let error = rig.run(container).await.unwrap_err();
    assert!(matches!(error, LaunchError::ImageNotRunnable { .. }), "{error}");
    assert!(error.to_string().contains("localhost/not-there:9"), "{error}");
}

async fn podman_tells_a_missing_program_from_a_failing_one() {
    let rig = rig().await;
    let mut container = in_image("");
    container.command = vec!["/bin/none".to_owned()];
    let error = rig.run(container).await.unwrap_err();
    assert!(matches!(error, LaunchError::Config { .. }), "{error}");
    assert!(error.to_string().contains("/bin/none"), "{error}");
    assert_eq!(rig.run(in_image("exit 127")).await.unwrap().0.code, 127);
    let mut container = in_image("true");
    container.security = Security { non_root: true, ..Security::default() };
    let error = rig.run(container).await.unwrap_err().to_string();
    assert!(error.contains("runAsUser"), "{error}");
}

async fn podman_stops_by_force_after_the_grace() {
    let rig = rig().await;
    let stop = CancellationToken::new();
    let mut container = in_image("trap '' TERM; echo up; while :; do sleep 1; done");
    container.grace = Duration::ZERO;
    let stopping = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        stop.cancel();
    };
    let (ended, ()) = tokio::join!(rig.run_until(container, &stop), stopping);
    assert_eq!(ended.unwrap().0.code, 137);
}

async fn podman_keeps_its_limits() {
    let rig = rig().await;
    let mut container =
        in_image("head -c 300000000 /dev/zero | tail -c 200000000 >/dev/null && echo had it");
    container.limits = Limits { memory_bytes: Some(32 << 20), ..Limits::default() };
    let said = rig.executor.describe(&container);
    if said.contains("cannot limit") {
        println!("  left out: {said}");
        return;
    }
    let (exit, log) = rig.run(container).await.unwrap();
    assert!(!log.contains("had it") && exit.code != 0, "{exit:?} {log}");
}

async fn podman_leaves_nothing_behind() {
    let rig = rig().await;
    let pod = PodLaunch { uid: "lost".to_owned(), hostname: "lost".to_owned() };
    let open = rig.executor.open_pod(&pod).await.unwrap();
    let log = rig.logs.create("lost", "main", 0).unwrap();
    let container = in_image("echo up; sleep 999");
    let stop = CancellationToken::new();
    // Given up in the middle, as when the hub ends.
    let given_up =
        tokio::time::timeout(Duration::from_secs(3), open.run(&container, log, &stop, || ()));
    assert!(given_up.await.is_err());
    rig.executor.remove_leftovers().await.unwrap();
    let list = Command::new("podman")
        .args(["ps", "--all", "--filter", "name=muster-lost", "--format", "{{.Names}}"])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&list.stdout), "");
}
