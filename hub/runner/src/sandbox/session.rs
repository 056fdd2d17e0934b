//! The hub's side of the sandbox: starts the zygote, opens pods, runs containers in them.

use std::{
    collections::BTreeMap,
    io,
    net::TcpListener,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::{net::UnixStream as StdUnixStream, process::CommandExt},
    },
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    io::Interest,
    net::UnixStream,
    sync::{Mutex as AsyncMutex, oneshot},
    task::JoinHandle,
};

use super::{
    SUBCOMMAND, frame,
    message::{Fault, FromPod, OpenPod, RunContainer, ToPod},
};

/// Why a pod could not be opened or a container not be run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ZygoteError {
    /// The helper process could not be started.
    #[error("cannot start the sandbox helper {program}")]
    Start { program: String, source: io::Error },
    /// The helper or the pod process is gone: killed from outside, or out of memory.
    #[error("the sandbox helper process ended unexpectedly")]
    Gone(#[source] io::Error),
    /// The system refused one of the steps.
    #[error("{0}")]
    Refused(Fault),
}

/// The hub's helper process; started again if somebody kills it.
pub(crate) struct Zygote {
    program: PathBuf,
    /// What to run the program with: `podman unshare` for podman without root.
    launcher: Vec<String>,
    /// What the helper runs when the hub is gone: the end of a container engine's containers.
    last_will: Vec<String>,
    process: Mutex<Option<Process>>,
}

struct Process {
    child: Child,
    control: StdUnixStream,
}

impl Zygote {
    pub(crate) fn new(program: PathBuf, launcher: Vec<String>, last_will: Vec<String>) -> Self {
        Self { program, launcher, last_will, process: Mutex::new(None) }
    }

    /// Makes a pod's namespaces. Dropping the session ends everything in it.
    pub(crate) async fn open_pod(&self, request: &OpenPod) -> Result<PodSession, ZygoteError> {
        let (ours, theirs) = StdUnixStream::pair().map_err(ZygoteError::Gone)?;
        self.send(request, theirs.as_fd())?;
        drop(theirs);
        PodSession::attach(ours).await
    }

    /// One small message into an empty socket buffer: it does not block.
    fn send(&self, request: &OpenPod, socket: BorrowedFd<'_>) -> Result<(), ZygoteError> {
        let mut process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = process.as_ref()
            && frame::send(&running.control, request, &[socket]).is_ok()
        {
            return Ok(());
        }
        if let Some(gone) = process.take() {
            end(gone);
        }
        let started = self.start()?;
        let started = process.insert(started);
        frame::send(&started.control, request, &[socket]).map_err(ZygoteError::Gone)
    }

    fn start(&self) -> Result<Process, ZygoteError> {
        let program = self.program.display().to_string();
        let failed = |source| ZygoteError::Start { program: program.clone(), source };
        let (control, theirs) = StdUnixStream::pair().map_err(failed)?;
        let mut command = match self.launcher.split_first() {
            None => {
                let mut command = Command::new(&self.program);
                if self.last_will.is_empty() {
                    command.env_clear();
                }
                command
            }
            Some((launcher, args)) => {
                let mut command = Command::new(launcher);
                command.args(args).arg(&self.program);
                command
            }
        };
        command
            .args(SUBCOMMAND)
            .args(&self.last_will)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            // Out of the terminal's process group: Ctrl-C is for the hub, which ends pods in order.
            .process_group(0);
        let child = command.spawn().map_err(failed)?;
        Ok(Process { child, control })
    }
}

impl Drop for Zygote {
    fn drop(&mut self) {
        let mut process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(process) = process.take() {
            end(process);
        }
    }
}

fn end(process: Process) {
    let Process { mut child, control } = process;
    // The end of the socket is the end of the helper, after its last will if it has one.
    drop(control);
    std::thread::spawn(move || child.wait());
}

/// How a container's first process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ContainerExit {
    pub(crate) code: Option<i32>,
    pub(crate) signal: Option<i32>,
}

type StartedTx = oneshot::Sender<Result<(), Fault>>;

#[derive(Default)]
struct Waiting {
    starts: BTreeMap<u32, StartedTx>,
    exits: BTreeMap<u32, oneshot::Sender<ContainerExit>>,
}

/// An open pod. Everything in it ends when this is dropped.
pub(crate) struct PodSession {
    socket: Arc<UnixStream>,
    sending: AsyncMutex<()>,
    waiting: Arc<Mutex<Waiting>>,
    reader: JoinHandle<()>,
    next_id: AtomicU32,
    pid: i32,
    listener: Mutex<Option<TcpListener>>,
}

impl PodSession {
    async fn attach(socket: StdUnixStream) -> Result<Self, ZygoteError> {
        socket.set_nonblocking(true).map_err(ZygoteError::Gone)?;
        let socket = Arc::new(UnixStream::from_std(socket).map_err(ZygoteError::Gone)?);
        let (pid, listener) = match receive(&socket).await.map_err(ZygoteError::Gone)? {
            Some((FromPod::Ready { pid }, mut fds)) => (pid, fds.pop().map(TcpListener::from)),
            Some((FromPod::Failed(fault), _)) => return Err(ZygoteError::Refused(fault)),
            Some(_) | None => return Err(gone()),
        };
        let waiting = Arc::new(Mutex::new(Waiting::default()));
        let reader = tokio::spawn(read_events(socket.clone(), waiting.clone()));
        Ok(Self {
            socket,
            sending: AsyncMutex::new(()),
            waiting,
            reader,
            next_id: AtomicU32::new(0),
            pid,
            listener: Mutex::new(listener),
        })
    }

    /// The pod process, as the host numbers it.
    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }

    /// The listener on 127.0.0.1 of the pod, once.
    pub(crate) fn take_listener(&self) -> Option<TcpListener> {
        self.listener.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Starts a container; returns its number and its end to come.
    pub(crate) async fn run(
        &self,
        mut request: RunContainer,
        output: [OwnedFd; 2],
    ) -> Result<(u32, oneshot::Receiver<ContainerExit>), ZygoteError> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        request.id = id;
        let (started_tx, started) = oneshot::channel();
        let (exit_tx, exit) = oneshot::channel();
        {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            waiting.starts.insert(id, started_tx);
            waiting.exits.insert(id, exit_tx);
        }
        let fds = [output[0].as_fd(), output[1].as_fd()];
        self.send(&ToPod::Run(Box::new(request)), &fds).await.map_err(ZygoteError::Gone)?;
        drop(output);
        started.await.map_err(|_| gone())?.map_err(ZygoteError::Refused)?;
        Ok((id, exit))
    }

    /// Sends a signal to a container's first process.
    pub(crate) async fn signal(&self, id: u32, signal: i32) -> io::Result<()> {
        self.send(&ToPod::Signal { id, signal }, &[]).await
    }

    async fn send(&self, message: &impl Serialize, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let frame = frame::encode(message)?;
        let _one_at_a_time = self.sending.lock().await;
        let mut sent = 0;
        while sent < frame.len() {
            let fds = if sent == 0 { fds } else { &[] };
            let part = || frame::send_part(&*self.socket, &frame[sent..], fds);
            sent += self.socket.async_io(Interest::WRITABLE, part).await?;
        }
        Ok(())
    }
}

impl Drop for PodSession {
    fn drop(&mut self) {
        // With the reader gone this is the socket's last owner, and the pod process sees its end.
        self.reader.abort();
    }
}

fn gone() -> ZygoteError {
    ZygoteError::Gone(io::ErrorKind::UnexpectedEof.into())
}

async fn read_events(socket: Arc<UnixStream>, waiting: Arc<Mutex<Waiting>>) {
    while let Ok(Some((event, _))) = receive::<FromPod>(&socket).await {
        let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            FromPod::Started { id } => {
                if let Some(started) = waiting.starts.remove(&id) {
                    let _ = started.send(Ok(()));
                }
            }
            FromPod::NotStarted { id, fault } => {
                waiting.exits.remove(&id);
                if let Some(started) = waiting.starts.remove(&id) {
                    let _ = started.send(Err(fault));
                }
            }
            FromPod::Exited { id, code, signal } => {
                if let Some(exit) = waiting.exits.remove(&id) {
                    let _ = exit.send(ContainerExit { code, signal });
                }
            }
            FromPod::Ready { .. } | FromPod::Failed(_) => {}
        }
    }
    // Whoever still waits learns from the dropped sender that the pod process is gone.
    *waiting.lock().unwrap_or_else(PoisonError::into_inner) = Waiting::default();
}

async fn receive<T: DeserializeOwned>(
    socket: &UnixStream,
) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut fds = Vec::new();
    let mut header = [0; 4];
    if !fill(socket, &mut header, &mut fds).await? {
        return Ok(None);
    }
    let mut body = vec![0; frame::body_len(header)?];
    if !fill(socket, &mut body, &mut fds).await? {
        return Ok(None);
    }
    Ok(Some((serde_json::from_slice(&body)?, fds)))
}

async fn fill(socket: &UnixStream, buffer: &mut [u8], fds: &mut Vec<OwnedFd>) -> io::Result<bool> {
    let mut filled = 0;
    while filled < buffer.len() {
        let part = || frame::receive_part(socket, &mut buffer[filled..], fds);
        match socket.async_io(Interest::READABLE, part).await? {
            0 => return Ok(false),
            n => filled += n,
        }
    }
    Ok(true)
}
