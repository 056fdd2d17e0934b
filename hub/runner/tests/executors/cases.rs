//! The process executor: what works in the sandbox, and what must not.

use std::{fs, os::unix::fs::symlink, time::Duration};

use muster_runner::{ExecutorKind, LaunchError, Limits, Security};
use tokio_util::sync::CancellationToken;

use crate::rig::{GREETING, Rig, Test, mount, run_all, script};

pub(crate) async fn run(filter: &[String]) -> usize {
    macro_rules! tests {
        ($($name:ident),* $(,)?) => {
            [$((stringify!($name), { fn run() -> std::pin::Pin<Box<dyn Future<Output = ()>>> { Box::pin($name()) } run as _ })),*]
        };
    }
    let tests: [Test; 16] = tests![
        runs_a_program_and_keeps_what_it_prints,
        shares_volumes_between_containers_as_mounted,
        cannot_read_what_is_the_hosts,
        cannot_write_to_the_system,
        has_no_privileges_left,
        sees_no_other_processes,
        reaches_the_api_and_nothing_else,
        cannot_leave_through_a_planted_link,
        runs_as_the_user_it_asks_for,
        refuses_an_image_without_command,
        refuses_a_program_that_is_only_in_the_image,
        ends_with_everything_it_started,
        is_stopped_by_force_after_its_grace,
        ends_when_it_takes_too_much_memory,
        ends_when_it_makes_too_many_processes,
        cannot_write_more_than_its_limit,
    ];
    let mut failed = run_all(&tests, filter).await;
    if filter.iter().any(|part| part == "bench") {
        let bench: [Test; 1] = tests![bench];
        failed += run_all(&bench, filter).await;
    }
    failed
}

/// Prints what one sandbox costs: `cargo test -p muster-runner --test executors -- bench`.
async fn bench() {
    let rig = rig().await;
    let mut times = Vec::new();
    for _ in 0..50 {
        let started = std::time::Instant::now();
        rig.run(script(":")).await.unwrap();
        times.push(started.elapsed());
    }
    times.sort_unstable();
    println!("one sandboxed container: median {:?}, slowest {:?}", times[25], times[49]);
}

async fn rig() -> Rig {
    Rig::new(ExecutorKind::Process).await
}

async fn runs_a_program_and_keeps_what_it_prints() {
    let rig = rig().await;
    let mut container = script("echo out; echo err >&2; echo $GREETING from $(hostname); exit 3");
    container.env.insert("GREETING".to_owned(), "hello".to_owned());
    let (exit, log) = rig.run(container).await.unwrap();
    assert_eq!(exit.code, 3);
    let mut lines: Vec<&str> = log.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["err", "hello from the-pod", "out"]);
}

async fn shares_volumes_between_containers_as_mounted() {
    let rig = rig().await;
    let volume = rig.volume("shared");
    let mut first = script("mkdir -p /kratix/output/a && echo one > /kratix/output/a/b");
    first.mounts = vec![mount(volume.clone(), "/kratix/output", false)];
    assert_eq!(rig.run(first).await.unwrap().0.code, 0);
    let mut second = script("cat /kratix/input/a/b; touch /kratix/input/c");
    second.mounts = vec![mount(volume.clone(), "/kratix/input", true)];
    let (exit, log) = rig.run(second).await.unwrap();
    assert_ne!(exit.code, 0, "the mount is read-only");
    // Two pipes carry the two outputs, so either may come first.
    assert!(log.lines().any(|line| line == "one") && log.contains("Read-only"), "{log}");
    assert_eq!(fs::read_to_string(volume.join("a/b")).unwrap(), "one\n");
}

async fn cannot_read_what_is_the_hosts() {
    let rig = rig().await;
    fs::write(rig.config.data_dir.join("secret"), "s3cret").unwrap();
    let data = rig.config.data_dir.display().to_string();
    let exe = rig.config.own_exe.display().to_string();
    let paths = [
        &format!("{data}/secret"),
        &data,
        &exe,
        "/root",
        "/home",
        "/run",
        "/var/lib",
        "/var/log",
        "/etc/shadow",
        "/etc/ssl/private",
        "/etc/hostid",
        "/sys",
        "/boot",
        "/dev/vda",
        "/dev/mem",
        "/dev/kmsg",
        "/proc/1/root/root",
        "/proc/kcore",
        "/proc/keys",
        "/proc/sysrq-trigger",
        "/mnt",
        "/opt",
        "/srv",
    ];
    for path in paths {
        let text = format!(
            "if head -c1 {path} 2>/dev/null | grep -q .; then echo read; fi; \
                            if ls {path} 2>/dev/null | grep -qvx {path}; then echo listed; fi"
        );
        let (_, log) = rig.run(script(&text)).await.unwrap();
        assert_eq!(log, "", "{path} can be seen");
    }
    let (_, log) = rig.run(script("cat /etc/passwd /etc/group; env")).await.unwrap();
    assert!(log.contains("nobody") && !log.contains("daemon"), "{log}");
    assert!(!log.contains("CARGO"), "the hub's environment stays with the hub: {log}");
}

async fn cannot_write_to_the_system() {
    let rig = rig().await;
    for path in ["/", "/usr", "/bin", "/lib", "/etc", "/etc/ssl/certs", "/proc/sys/kernel", "/dev"]
    {
        let (exit, log) = rig.run(script(&format!("echo x > {path}/probe"))).await.unwrap();
        assert_ne!(exit.code, 0, "{path} can be written to: {log}");
    }
    let (exit, _) = rig.run(script("echo 1 > /proc/sys/net/ipv4/ip_forward")).await.unwrap();
    assert_ne!(exit.code, 0, "sysctls of the pod's network can be written");
    let (exit, log) = rig.run(script("echo mine > /tmp/x && cat /tmp/x")).await.unwrap();
    assert_eq!((exit.code, log.as_str()), (0, "mine\n"), "/tmp is the container's own");
}

async fn has_no_privileges_left() {
    let rig = rig().await;
    for user in [None, Some(0)] {
        let mut container = script("cat /proc/self/status; cat /proc/self/uid_map");
        container.security = Security { user, ..Security::default() };
        let (_, log) = rig.run(container).await.unwrap();
        for line in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert!(log.contains(&format!("{line}:\t0000000000000000")), "{line} in {log}");
        }
        assert!(log.contains("NoNewPrivs:\t1"), "{log}");
        for attempt in [
            "mount -t tmpfs none /tmp",
            "umount /etc/passwd",
            "umount /proc/sys",
            "unshare --user true",
            "unshare --mount true",
            "chroot / true",
            "hostname other",
            "mknod /tmp/disk b 8 0",
            "chown 1:1 /tmp",
            "ip link set lo down",
            "kill -9 1",
        ] {
            let mut container = script(&format!("{attempt} && echo did it"));
            container.security = Security { user, ..Security::default() };
            let (_, log) = rig.run(container).await.unwrap();
            // A signal to process 1 from within its namespace is accepted, and ignored.
            assert!(attempt.starts_with("kill") || !log.contains("did it"), "{attempt}: {log}");
        }
    }
    let (_, log) =
        rig.run(script("ls -ln /proc/self/ns; readlink /proc/self/ns/user")).await.unwrap();
    let hosts = fs::read_link("/proc/self/ns/user").unwrap();
    assert!(!log.contains(hosts.to_str().unwrap()), "{log}");
}

async fn sees_no_other_processes() {
    let rig = rig().await;
    let (_, log) =
        rig.run(script("for p in /proc/[0-9]*; do echo ${p#/proc/}; done")).await.unwrap();
    assert_eq!(log, "1\n", "the shell is the only process that it sees");
    let text = "for n in mnt pid ipc uts net user; do readlink /proc/self/ns/$n; done";
    let (_, log) = rig.run(script(text)).await.unwrap();
    for (line, name) in log.lines().zip(["mnt", "pid", "ipc", "uts", "net", "user"]) {
        let hosts = fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
        assert_ne!(line, hosts.to_str().unwrap(), "{name} is the host's");
    }
    assert_eq!(log.lines().count(), 6);
}

async fn reaches_the_api_and_nothing_else() {
    let rig = rig().await;
    let hosts = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = hosts.local_addr().unwrap().port();
    let text = format!(
        "python3 - <<'END'\nimport socket\n\
         print(socket.create_connection(('127.0.0.1', 6443), 5).recv(99).decode())\n\
         for address in [('127.0.0.1', {port}), ('1.1.1.1', 53)]:\n  try:\n    \
         socket.create_connection(address, 2); print('reached', address)\n  \
         except OSError as e: print('refused')\nEND"
    );
    let (_, log) = rig.run(script(&text)).await.unwrap();
    assert_eq!(log, format!("{GREETING}\nrefused\nrefused\n"));
}

async fn cannot_leave_through_a_planted_link() {
    let rig = rig().await;
    let volume = rig.volume("planted");
    let outside = rig.dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    symlink(&outside, volume.join("link")).unwrap();
    let mut container = script("true");
    container.mounts = vec![
        mount(volume.clone(), "/data", false),
        mount(rig.volume("inner"), "/data/link/made-here", false),
    ];
    let error = rig.run(container).await.unwrap_err().to_string();
    assert!(error.contains("/data/link/made-here"), "{error}");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "nothing was made outside");
    let mut container = script("cat /data/link/x");
    fs::write(outside.join("x"), "outside").unwrap();
    container.mounts = vec![mount(volume, "/data", false)];
    assert_ne!(rig.run(container).await.unwrap().0.code, 0);
}

async fn runs_as_the_user_it_asks_for() {
    let rig = rig().await;
    let (_, log) = rig.run(script("id -u; id -g; touch /tmp/x; stat -c %u /tmp/x")).await.unwrap();
    assert_eq!(log, "65532\n65532\n65532\n");
    let mut container = script("id -u; id -g");
    container.security.user = Some(1234);
    container.security.group = Some(99);
    assert_eq!(rig.run(container).await.unwrap().1, "1234\n99\n");
    let mut container = script("true");
    container.security = Security { user: Some(0), non_root: true, ..Security::default() };
    let error = rig.run(container).await.unwrap_err().to_string();
    assert!(error.contains("runAsNonRoot"), "{error}");
    // On the host it is an ordinary user, whoever it thinks it is.
    let volume = rig.volume("owned");
    let mut container = script("touch /v/file");
    container.security.user = Some(0);
    container.mounts = vec![mount(volume.clone(), "/v", false)];
    assert_eq!(rig.run(container).await.unwrap().0.code, 0);
    let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(volume.join("file")).unwrap());
    assert_ne!(owner, 0);
}

async fn refuses_an_image_without_command() {
    let rig = rig().await;
    let mut container = script("");
    container.command.clear();
    let error = rig.run(container).await.unwrap_err();
    assert!(matches!(error, LaunchError::ImageNotRunnable { .. }));
    let text = error.to_string();
    assert!(text.contains("example.org/never-pulled:1") && text.contains("podman"), "{text}");
}

async fn refuses_a_program_that_is_only_in_the_image() {
    let rig = rig().await;
    let mut container = script("");
    container.command = vec!["/scripts/pipeline.sh".to_owned()];
    let error = rig.run(container).await.unwrap_err();
    assert!(matches!(error, LaunchError::ImageNotRunnable { .. }), "{error}");
    assert!(error.to_string().contains("/scripts/pipeline.sh"), "{error}");
}

async fn ends_with_everything_it_started() {
    let rig = rig().await;
    let volume = rig.volume("alive");
    let text = "(trap '' TERM HUP; while :; do date > /v/alive; sleep 0.01; done) & \
                while ! [ -e /v/alive ]; do sleep 0.01; done";
    let mut container = script(text);
    container.mounts = vec![mount(volume.clone(), "/v", false)];
    assert_eq!(rig.run(container).await.unwrap().0.code, 0);
    fs::remove_file(volume.join("alive")).unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!volume.join("alive").exists(), "a background process is still running");
}

async fn is_stopped_by_force_after_its_grace() {
    let rig = rig().await;
    let stop = CancellationToken::new();
    stop.cancel();
    let container = script("trap '' TERM; while :; do sleep 1; done");
    let (exit, _) = rig.run_until(container, &stop).await.unwrap();
    assert_eq!(exit.code, 137);
}

async fn ends_when_it_takes_too_much_memory() {
    let rig = rig().await;
    let mut container = script("python3 -c \"x = bytearray(300 << 20); print('had it')\"");
    container.limits = Limits { memory_bytes: Some(64 << 20), ..Limits::default() };
    let said = rig.executor.describe(&container);
    assert!(said.contains("memory 64 MiB") && said.contains("was not used"), "{said}");
    let (exit, log) = rig.run(container).await.unwrap();
    assert!(exit.code != 0 && !log.contains("had it"), "{exit:?} {log}");
    if said.contains("memory 64 MiB (cgroup)") {
        assert!(exit.out_of_memory, "{exit:?}");
    }
}

async fn ends_when_it_makes_too_many_processes() {
    let rig = rig().await;
    let text = "python3 - <<'END'\nimport os, time\nmade = 0\ntry:\n  while made < 2000:\n    \
                if os.fork() == 0: time.sleep(60); os._exit(0)\n    made += 1\n\
                except OSError: print('stopped at', made)\nEND";
    let (_, log) = rig.run(script(text)).await.unwrap();
    assert!(log.starts_with("stopped at "), "{log}");
}

async fn cannot_write_more_than_its_limit() {
    let rig = rig().await;
    let volume = rig.volume("full");
    let mut container = script("head -c 9000000 /dev/zero > /v/big; ls -l /v/big");
    container.limits = Limits { storage_bytes: Some(1 << 20), ..Limits::default() };
    container.mounts = vec![mount(volume.clone(), "/v", false)];
    rig.run(container).await.unwrap();
    assert_eq!(fs::metadata(volume.join("big")).unwrap().len(), 1 << 20);
}
