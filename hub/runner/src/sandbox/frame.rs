//! How hub, zygote and pod process talk: length-prefixed JSON over a Unix stream socket, with open
//! files beside it. Nothing here ever touches a command line, so secrets in `env` stay private.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::{Serialize, de::DeserializeOwned};

/// The largest message: a container's arguments and environment; Linux allows a process 2 MiB.
pub(crate) const FRAME_MAX: usize = 4 << 20;
/// The most open files beside one message: a container's stdout and stderr.
const FDS_MAX: usize = 2;
const HEADER: usize = 4;

/// A message with its length before it, as it goes on the wire.
pub(crate) fn encode(message: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut frame = vec![0; HEADER];
    serde_json::to_writer(&mut frame, message)?;
    let len = frame.len() - HEADER;
    if len > FRAME_MAX {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("message of {len} bytes; the limit is {FRAME_MAX}"),
        ));
    }
    frame[..HEADER].copy_from_slice(&(len as u32).to_le_bytes());
    Ok(frame)
}

/// Sends the start of `frame` with `fds` beside its first byte; returns how much went.
pub(crate) fn send_part(
    socket: impl AsFd,
    frame: &[u8],
    fds: &[BorrowedFd<'_>],
) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many files in one message"));
    }
    let iov = [IoSlice::new(frame)];
    Ok(sendmsg(socket, &iov, &mut ancillary, SendFlags::NOSIGNAL)?)
}

/// Receives some bytes and the files beside them; 0 bytes mean that the other side is gone.
pub(crate) fn receive_part(
    socket: impl AsFd,
    buffer: &mut [u8],
    fds: &mut Vec<OwnedFd>,
) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut iov = [IoSliceMut::new(buffer)];
    let received = recvmsg(socket, &mut iov, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    Ok(received.bytes)
}

/// Sends one message on a blocking socket.
pub(crate) fn send(
    socket: impl AsFd,
    message: &impl Serialize,
    fds: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let frame = encode(message)?;
    let mut sent = send_part(&socket, &frame, fds)?;
    while sent < frame.len() {
        sent += send_part(&socket, &frame[sent..], &[])?;
    }
    Ok(())
}

/// Receives one message from a blocking socket; `None` at its end.
pub(crate) fn receive<T: DeserializeOwned>(
    socket: impl AsFd,
) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut fds = Vec::new();
    let mut header = [0; HEADER];
    if !fill(&socket, &mut header, &mut fds)? {
        return Ok(None);
    }
    let mut body = vec![0; body_len(header)?];
    if !fill(&socket, &mut body, &mut fds)? {
        return Ok(None);
    }
    Ok(Some((serde_json::from_slice(&body)?, fds)))
}

/// The length that a header announces, if it is within the limit.
pub(crate) fn body_len(header: [u8; HEADER]) -> io::Result<usize> {
    let len = u32::from_le_bytes(header) as usize;
    if len > FRAME_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("message of {len} bytes")));
    }
    Ok(len)
}

fn fill(socket: impl AsFd, buffer: &mut [u8], fds: &mut Vec<OwnedFd>) -> io::Result<bool> {
    let mut filled = 0;
    while filled < buffer.len() {
        match receive_part(&socket, &mut buffer[filled..], fds) {
            Ok(0) => return Ok(false),
            Ok(n) => filled += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}
