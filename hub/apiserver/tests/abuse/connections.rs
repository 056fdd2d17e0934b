//! What connections can do: many, slow, silent, or not reading.

use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde_json::json;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::{
    raw::{Sender2, get, text},
    victim::{LONG, Victim, until},
};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const MIB: usize = 1024 * 1024;

/// Watchers that one client may reasonably have; some on connections of their own.
const WATCHERS: usize = 2_000;
const WATCHERS_ALONE: usize = 500;
const WATCHERS_TOGETHER: usize = 150;

/// Reads until the server ends the connection.
async fn until_closed(mut stream: impl AsyncRead + Unpin, what: &str) -> Vec<u8> {
    let mut all = Vec::new();
    let mut buffer = vec![0; 16 * 1024];
    let read = async {
        while let Ok(count @ 1..) = stream.read(&mut buffer).await {
            all.extend_from_slice(&buffer[..count]);
        }
    };
    timeout(LONG, read).await.unwrap_or_else(|_| panic!("{what}: the server never closes"));
    all
}

async fn make_map(victim: &Victim, name: &str, length: usize) {
    let map = json!({"metadata": {"name": name}, "data": {"k": "x".repeat(length)}});
    let (code, body) = victim.admin.post(MAPS, map.to_string()).await;
    assert_eq!(code, 201, "{body}");
}

pub(crate) async fn heads_that_are_too_long(victim: &Victim) {
    let fields: String = (0..5_000).map(|count| format!("x-{count}: y\r\n")).collect();
    let heads = [
        format!("GET /api HTTP/1.1\r\nhost: localhost\r\n{fields}\r\n"),
        format!("GET /api HTTP/1.1\r\nhost: localhost\r\nx: {}\r\n\r\n", "y".repeat(MIB)),
        format!("GET /{} HTTP/1.1\r\nhost: localhost\r\n\r\n", "y".repeat(MIB)),
        "\r\n".repeat(MIB),
        "nonsense ".repeat(MIB / 9),
    ];
    for door in [&victim.eve, &victim.eve.nobody()] {
        for head in &heads {
            let mut stream = door.connect(b"http/1.1").await.unwrap();
            // The server may have heard enough before all is said.
            let _ = stream.write_all(head.as_bytes()).await;
            let answer = until_closed(stream, "a head").await;
            let answer = String::from_utf8_lossy(&answer);
            assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
        }
    }
    let mut sender = victim.eve.http2().await;
    let mut request = get("/api");
    for count in 0..2_000 {
        let name: http::HeaderName = format!("x-{count}").parse().unwrap();
        request.headers_mut().insert(name, "y".repeat(64).parse().unwrap());
    }
    let refused = sender.send_request(request).await;
    assert!(refused.is_err() || refused.unwrap().status().is_client_error());
}

pub(crate) async fn clients_that_say_nothing(victim: &Victim) {
    let address = victim.eve.address;
    let nobody = victim.eve.nobody();
    let silent = async || until_closed(TcpStream::connect(address).await.unwrap(), "no TLS").await;
    let half = async || {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // The beginning of a ClientHello.
        stream.write_all(&[0x16, 0x03, 0x01, 0x02]).await.unwrap();
        until_closed(stream, "half a handshake").await
    };
    let no_request = async |protocol: &[u8], known: bool| {
        let door = if known { &victim.eve } else { &nobody };
        until_closed(door.connect(protocol).await.unwrap(), "no request").await
    };
    let slow_head = async || {
        let mut stream = victim.eve.connect(b"http/1.1").await.unwrap();
        for letter in "GET /api HTTP/1.1\r\nx-slow: ".bytes().chain(std::iter::repeat(b'y')) {
            if stream.write_all(&[letter]).await.is_err() || stream.flush().await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let slow_body = async || {
        let mut stream = victim.eve.connect(b"http/1.1").await.unwrap();
        let head = format!(
            "POST {MAPS}?timeout=3s HTTP/1.1\r\nhost: localhost\r\n\
             content-type: application/json\r\ncontent-length: 3000000\r\n\r\n{{"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        until_closed(stream, "a slow body").await
    };
    let many = async || {
        let rounds = (0..20).map(|_| async {
            tokio::join!(
                silent(),
                half(),
                no_request(b"http/1.1", false),
                no_request(b"h2", false),
                no_request(b"http/1.1", true),
                no_request(b"h2", true),
                slow_head(),
                slow_body(),
            )
        });
        join_all(rounds).await
    };
    for (.., slow_body) in timeout(LONG, many()).await.expect("all are closed in the end") {
        let answer = String::from_utf8_lossy(&slow_body).into_owned();
        let told = answer.starts_with("HTTP/1.1 504") || answer.starts_with("HTTP/1.1 429");
        assert!(told, "{answer}");
    }
}

/// Frames of HTTP/2, as far as attacks need them.
mod frames {
    pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    pub(super) const SETTINGS: u8 = 4;
    pub(super) const HEADERS: u8 = 1;
    pub(super) const RESET: u8 = 3;
    pub(super) const PING: u8 = 6;
    /// END_STREAM and END_HEADERS.
    pub(super) const WHOLE: u8 = 5;

    pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        frame
    }

    /// `GET PATH`, by the static table of HPACK.
    pub(super) fn get(path: &str) -> Vec<u8> {
        let mut block = vec![0x82, 0x87, 0x04, path.len() as u8];
        block.extend(path.as_bytes());
        block.extend([0x01, 9]);
        block.extend(b"localhost");
        block
    }
}

pub(crate) async fn streams_that_are_reset(victim: &Victim) {
    let attack = async || {
        let mut stream = victim.eve.connect(b"h2").await.unwrap();
        let mut hello = frames::PREFACE.to_vec();
        hello.extend(frames::frame(frames::SETTINGS, 0, 0, &[]));
        stream.write_all(&hello).await.unwrap();
        let head = frames::get(MAPS);
        for batch in 0..200 {
            let mut bytes = Vec::new();
            for at in 0..100 {
                let id = (batch * 100 + at) * 2 + 1;
                bytes.extend(frames::frame(frames::HEADERS, frames::WHOLE, id, &head));
                bytes.extend(frames::frame(frames::RESET, 0, id, &8_u32.to_be_bytes()));
            }
            if stream.write_all(&bytes).await.is_err() {
                return;
            }
        }
    };
    join_all((0..10).map(|_| attack())).await;
    victim.others_are_served().await;
}

pub(crate) async fn pings_without_end(victim: &Victim) {
    let attack = async |kind: u8, payload: &[u8]| {
        let mut stream = victim.eve.connect(b"h2").await.unwrap();
        let mut hello = frames::PREFACE.to_vec();
        hello.extend(frames::frame(frames::SETTINGS, 0, 0, &[]));
        stream.write_all(&hello).await.unwrap();
        let many = frames::frame(kind, 0, 0, payload).repeat(1_000);
        // Answers are never read: the server stops reading, or closes.
        for _ in 0..100 {
            match timeout(Duration::from_secs(2), stream.write_all(&many)).await {
                Ok(Ok(())) => {}
                _ => break,
            }
        }
        until_closed(stream, "pings").await;
    };
    join_all((0..5).map(|_| attack(frames::PING, &[0; 8]))).await;
    join_all((0..5).map(|_| attack(frames::SETTINGS, &[]))).await;
    victim.others_are_served().await;
}

pub(crate) async fn a_watch_that_is_not_read(victim: &Victim) {
    let watch = format!("{MAPS}?watch=true");
    let files = victim.files();
    let mut bodies: Vec<Incoming> = Vec::new();
    let mut senders = Vec::new();
    watch_without_reading(victim, &watch, &mut senders, &mut bodies).await;
    let mut plain = Vec::new();
    for _ in 0..20 {
        let mut stream = victim.eve.connect(b"http/1.1").await.unwrap();
        let head = format!("GET {watch} HTTP/1.1\r\nhost: localhost\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        plain.push(stream);
    }
    for count in 0..40 {
        make_map(victim, &format!("large-{count}"), MIB / 2).await;
    }
    // These begin with all that there is: 20 MiB for each of 200.
    watch_without_reading(victim, &watch, &mut senders, &mut bodies).await;
    // Each has 20 MiB to read, and does not: it is closed. (Others come and go meanwhile.)
    until("those who do not read are closed", || victim.files() <= files + 5).await;
    until("they know", || senders.iter().all(|sender| sender.is_closed())).await;
    for stream in plain {
        let read = until_closed(stream, "a watch").await.len();
        assert!(read < 20 * MIB, "it was closed before its end: {read}");
    }
    drop(bodies);
    victim.others_are_served().await;
}

async fn watch_without_reading(
    victim: &Victim,
    watch: &str,
    senders: &mut Vec<Sender2>,
    bodies: &mut Vec<Incoming>,
) {
    for _ in 0..10 {
        let mut sender = victim.eve.http2().await;
        for _ in 0..20 {
            bodies.push(sender.send_request(get(watch)).await.unwrap().into_body());
        }
        senders.push(sender);
    }
}

pub(crate) async fn lists_that_are_not_read(victim: &Victim) {
    for count in 0..40 {
        make_map(victim, &format!("large-{count}"), MIB / 2).await;
    }
    // 20 MiB each, asked for two hundred times: 4 GB.
    let mut codes = Vec::new();
    let mut held = Vec::new();
    for _ in 0..10 {
        let mut sender = victim.eve.http2().await;
        for _ in 0..20 {
            let answer = sender.send_request(get(MAPS)).await.unwrap();
            codes.push(answer.status().as_u16());
            held.push(answer.into_body());
        }
        drop(sender);
    }
    // Lists are made while they are sent: all may stand, and none is there as a whole.
    assert!(codes.contains(&200), "{codes:?}");
    assert!(codes.iter().all(|code| [200, 429].contains(code)), "{codes:?}");
    // Who reads is answered, meanwhile.
    let (code, list) = victim.admin.get(MAPS).await;
    assert!(code == 200 && list.len() > 20 * MIB);
    victim.others_are_served().await;
}

/// Reads a watch until an event about that name has come.
async fn hears_of(mut body: Incoming, name: &str) {
    let mut heard = Vec::new();
    while let Some(frame) = body.frame().await {
        let data: Bytes = frame.unwrap().into_data().unwrap_or_default();
        heard.extend_from_slice(&data);
        if String::from_utf8_lossy(&heard).contains(name) {
            return;
        }
    }
    panic!("a watch ended before its event");
}

pub(crate) async fn two_thousand_watchers(victim: &Victim) {
    let watch = format!("{MAPS}?watch=true&fieldSelector=metadata.name%3Dnews");
    let mut bodies = Vec::new();
    let mut together = Vec::new();
    let mut alone = Vec::new();
    for _ in 0..WATCHERS_ALONE {
        let mut sender = victim.eve.http1().await;
        let answer = sender.send_request(get(&watch)).await.unwrap();
        assert_eq!(answer.status(), 200);
        bodies.push(answer.into_body());
        alone.push(sender);
    }
    while bodies.len() < WATCHERS {
        let mut sender = victim.eve.http2().await;
        for _ in 0..WATCHERS_TOGETHER {
            let answer = sender.send_request(get(&watch)).await.unwrap();
            assert_eq!(answer.status(), 200);
            bodies.push(answer.into_body());
        }
        together.push(sender);
    }
    victim.others_are_served().await;
    make_map(victim, "news", 10).await;
    let all = join_all(bodies.into_iter().map(|body| hears_of(body, "\"news\"")));
    timeout(LONG, all).await.expect("each hears of it");
}

pub(crate) async fn strangers_in_crowds(victim: &Victim) {
    let nobody = victim.eve.nobody();
    let address = nobody.address;
    let mut crowd = Vec::new();
    for count in 0..1_500 {
        crowd.push(TcpStream::connect(address).await.unwrap());
        if count % 100 == 0 {
            // Who has something to show gets through.
            let mut sender = victim.eve.http1().await;
            let answer = sender.send_request(get("/api")).await.unwrap();
            assert_eq!(answer.status(), 200);
            text(answer).await;
        }
    }
    victim.others_are_served().await;
    for stream in crowd {
        until_closed(stream, "a stranger").await;
    }
}
