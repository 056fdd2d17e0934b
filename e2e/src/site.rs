//! A place on the web: texts by path over HTTP.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

/// How long a client may take over its request, which is sent at once.
const REQUEST_TIME: Duration = Duration::from_secs(10);
/// Most lines of a request; a client sends about five.
const REQUEST_LINES: usize = 100;

/// Texts by path, served on loopback until it is dropped.
#[derive(Debug)]
pub struct Site {
    texts: Texts,
    address: SocketAddr,
    closed: Arc<AtomicBool>,
    server: Option<JoinHandle<()>>,
}

type Texts = Arc<Mutex<BTreeMap<String, String>>>;

impl Site {
    /// Opens it, with nothing on it.
    pub fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (texts, closed) = (Texts::default(), Arc::new(AtomicBool::new(false)));
        let (served, ends) = (Arc::clone(&texts), Arc::clone(&closed));
        let server = thread::spawn(move || {
            for stream in listener.incoming() {
                if ends.load(Ordering::SeqCst) {
                    return;
                }
                // A client that is gone again is its own affair.
                let _ = stream.and_then(|stream| answer(stream, &served));
            }
        });
        Self { texts, address, closed, server: Some(server) }
    }

    /// Puts a text at a path, and says where that is.
    pub fn put(&self, path: &str, text: &str) -> String {
        self.texts.lock().unwrap().insert(path.to_owned(), text.to_owned());
        self.url(path)
    }

    /// The address of a path, whether or not there is something.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.closed.store(true, Ordering::SeqCst);
        // It looks whether it shall end when somebody comes.
        let _ = TcpStream::connect(self.address);
        let ended = self.server.take().map(JoinHandle::join);
        assert!(ended.is_some_and(|ended| ended.is_ok()) || thread::panicking());
    }
}

/// Answers one request; the connection ends with it.
fn answer(stream: TcpStream, texts: &Texts) -> std::io::Result<()> {
    stream.set_read_timeout(Some(REQUEST_TIME))?;
    let mut lines = BufReader::new(&stream).lines();
    let asked = lines.next().transpose()?.unwrap_or_default();
    for line in lines.take(REQUEST_LINES) {
        if line?.is_empty() {
            break;
        }
    }
    let path = asked.split(' ').nth(1).unwrap_or_default();
    let found = texts.lock().unwrap().get(path).cloned();
    let (code, text) = found.map_or(("404 Not Found", String::new()), |text| ("200 OK", text));
    let length = text.len();
    write!(
        &stream,
        "HTTP/1.1 {code}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{text}"
    )
}
