//! Logs that are kept, cut and followed.

use futures::TryStreamExt;

use super::*;

async fn read(logs: &Logs, options: LogOptions) -> String {
    let chunks: Vec<Bytes> =
        logs.open("pod", "main", options).unwrap().try_collect().await.unwrap();
    String::from_utf8(chunks.concat()).unwrap()
}

#[tokio::test]
async fn gives_back_what_was_printed() {
    let dir = tempfile::tempdir().unwrap();
    let logs = Logs::new(dir.path());
    let log = logs.create("pod", "main", 0).unwrap();
    log.clone().pump(&b"one\ntwo\nthree"[..]).await;
    assert_eq!(read(&logs, LogOptions::default()).await, "one\ntwo\nthree\n");
    let tail = LogOptions { tail_lines: Some(1), ..Default::default() };
    assert_eq!(read(&logs, tail).await, "three\n");
    let limited = LogOptions { limit_bytes: Some(5), ..Default::default() };
    assert_eq!(read(&logs, limited).await, "one\nt");
    let stamped = LogOptions { timestamps: true, tail_lines: Some(1), ..Default::default() };
    let line = read(&logs, stamped).await;
    assert!(line.split(' ').next().unwrap().parse::<Timestamp>().is_ok(), "{line}");
    let later = LogOptions { since: Some(Timestamp::MAX), ..Default::default() };
    assert_eq!(read(&logs, later).await, "");
}

#[tokio::test]
async fn follows_until_the_container_ends() {
    let dir = tempfile::tempdir().unwrap();
    let logs = Logs::new(dir.path());
    let log = logs.create("pod", "main", 0).unwrap();
    log.line(b"early");
    let follow = LogOptions { follow: true, ..Default::default() };
    let mut stream = Box::pin(logs.open("pod", "main", follow).unwrap());
    assert_eq!(stream.try_next().await.unwrap().unwrap(), "early\n");
    let reading = tokio::spawn(async move { stream.try_collect::<Vec<Bytes>>().await });
    log.line(b"late");
    drop(log);
    assert_eq!(reading.await.unwrap().unwrap().concat(), b"late\n");
}

#[tokio::test]
async fn previous_is_the_run_before_the_restart() {
    let dir = tempfile::tempdir().unwrap();
    let logs = Logs::new(dir.path());
    logs.create("pod", "main", 0).unwrap().line(b"first");
    let previous = LogOptions { previous: true, ..Default::default() };
    let error = logs.open("pod", "main", previous.clone()).err().unwrap();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
    logs.create("pod", "main", 1).unwrap().line(b"second");
    assert_eq!(read(&logs, LogOptions::default()).await, "second\n");
    assert_eq!(read(&logs, previous).await, "first\n");
}

#[test]
fn only_the_last_two_runs_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let logs = Logs::new(dir.path());
    for restart in 0..5 {
        logs.create("pod", "main", restart).unwrap().line(b"text");
    }
    let mut kept: Vec<_> = std::fs::read_dir(dir.path().join("logs/pod/main"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    kept.sort();
    assert_eq!(kept, ["3.log", "4.log"]);
}

#[tokio::test]
async fn drops_what_is_beyond_the_limit_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let logs = Logs::new(dir.path());
    let log = logs.create("pod", "main", 0).unwrap();
    let line = vec![b'x'; LINE_BYTES_MAX - 1];
    for _ in 0..=(LOG_BYTES_MAX as usize / line.len()) {
        log.line(&line);
    }
    let text = read(&logs, LogOptions { tail_lines: Some(1), ..Default::default() }).await;
    assert!(text.contains("limit of 10485760 bytes"), "{text}");
}
