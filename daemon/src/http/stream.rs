//! The bytes of a connection, watched for its stage.
//!
//! What hyper answers to a head that it cannot parse has no body and passes no handler; it is
//! replaced here, so that these errors are JSON and counted like all others.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::http::StatusCode;
use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::error::ApiError;
use super::server::HEAD_BYTES_MAX;
use super::stats::HttpStats;
use super::track::{Stage, Track};

/// What is read and thrown away of a client that still talks after the last answer.
const LINGER_BYTES_MAX: usize = 1 << 20;

#[derive(Debug)]
pub(super) struct TrackedStream {
    stream: TcpStream,
    track: Arc<Track>,
    stats: Arc<HttpStats>,
    /// The length of the present head's first line so far, and whether that is all of it.
    line: (usize, bool),
    /// Instead of what hyper would say about a head that it cannot parse.
    refusal: Option<Bytes>,
    lingered: usize,
}

impl TrackedStream {
    pub(super) fn new(stream: TcpStream, track: Arc<Track>, stats: Arc<HttpStats>) -> Self {
        Self {
            stream,
            track,
            stats,
            line: (0, false),
            refusal: None,
            lingered: 0,
        }
    }

    /// Whether what hyper writes is not to be sent: the answer to a head is written by a request,
    /// and there was none.
    fn replaces(&mut self, written: &[u8]) -> bool {
        if self.refusal.is_none() && matches!(self.track.stage().0, Stage::Head | Stage::Idle) {
            let status = match refused_status(written) {
                // hyper tells the two apart far above this bound only.
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE if self.line.0 > HEAD_BYTES_MAX / 2 => {
                    StatusCode::URI_TOO_LONG
                }
                status => status,
            };
            let refusal = ApiError::unparsed(status, HEAD_BYTES_MAX);
            self.stats.count_answer(status.as_u16());
            self.refusal = Some(refusal.to_bytes().into());
            self.track.on_refused_head();
        }
        self.refusal.is_some()
    }

    fn poll_refusal(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(refusal) = &mut self.refusal {
            while refusal.has_remaining() {
                let written = ready!(Pin::new(&mut self.stream).poll_write(cx, refusal))?;
                refusal.advance(written);
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Reads until the client ends, too: to close with bytes unread would make the kernel take the
    /// last answer back.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut space = [0; 4096];
        while self.lingered < LINGER_BYTES_MAX {
            let mut buffer = ReadBuf::new(&mut space);
            if ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer)).is_err()
                || buffer.filled().is_empty()
            {
                break;
            }
            self.lingered += buffer.filled().len();
        }
        Poll::Ready(Ok(()))
    }
}

/// The status of an answer such as `HTTP/1.1 431 Request Header Fields Too Large`.
fn refused_status(head: &[u8]) -> StatusCode {
    head.get(9..12)
        .and_then(|digits| StatusCode::from_bytes(digits).ok())
        .unwrap_or(StatusCode::BAD_REQUEST)
}

impl AsyncRead for TrackedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, into))?;
        let read = &into.filled()[before..];
        if !read.is_empty() {
            if self.track.on_read() {
                self.line = (0, false);
            }
            if !self.line.1 {
                let end = read.iter().position(|byte| *byte == b'\n');
                self.line.0 += end.unwrap_or(read.len());
                self.line.1 = end.is_some();
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for TrackedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.replaces(bytes) {
            return Poll::Ready(Ok(bytes.len()));
        }
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        if matches!(written, Poll::Ready(Ok(1..))) {
            self.track.on_written();
        }
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.replaces(slices.first().map_or(&[], |slice| &**slice)) {
            return Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()));
        }
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        if matches!(written, Poll::Ready(Ok(1..))) {
            self.track.on_written();
        }
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_refusal(cx))?;
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        self.track.on_flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_refusal(cx))?;
        self.track.on_shutdown();
        ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
        self.poll_linger(cx)
    }
}
