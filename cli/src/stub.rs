//! A stand-in for masters and slaves in tests: answers each request by a function of its path.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use crate::client::{Client, ClusterArgs, Masters};

/// What is answered, with status 200 unless said otherwise.
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: String,
}

impl Reply {
    /// Only a body.
    pub(crate) fn ok(body: &str) -> Self {
        Self {
            status: 200,
            headers: Vec::new(),
            body: body.to_owned(),
        }
    }

    /// Somebody else is to be asked.
    pub(crate) fn redirect(location: &str) -> Self {
        Self {
            status: 307,
            ..Self::with("location", location, "{}")
        }
    }

    /// A body and a header.
    pub(crate) fn with(header: &'static str, value: &str, body: &str) -> Self {
        Self {
            headers: vec![(header, value.to_owned())],
            ..Self::ok(body)
        }
    }
}

/// A server on loopback for as long as the test's process lives.
pub(crate) struct Stub {
    pub(crate) address: SocketAddr,
}

impl Stub {
    /// `answer` gets the path with its query; `None` closes the connection without a word.
    pub(crate) fn start(mut answer: impl FnMut(&str) -> Option<Reply> + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
        let address = listener.local_addr().expect("it is bound");
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A client that has gone is no concern of a stub.
                let _ = serve(&stream, &mut answer);
            }
        });
        Self { address }
    }

    /// A client that takes it for the master.
    pub(crate) fn client(&self) -> Client {
        Client::new(&ClusterArgs {
            master: Some(Masters::told(&self.address.to_string())),
        })
    }
}

fn serve(
    mut stream: &TcpStream,
    answer: &mut impl FnMut(&str) -> Option<Reply>,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut lines = reader.by_ref().lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    let mut body = 0;
    for line in lines {
        let line = line?.to_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(length) = line.strip_prefix("content-length:") {
            body = length.trim().parse().unwrap_or(0);
        }
    }
    // A socket that is closed with something unread takes the answer with it.
    std::io::copy(&mut reader.take(body), &mut std::io::sink())?;
    let path = first.split(' ').nth(1).unwrap_or_default();
    let Some(reply) = answer(path) else {
        return Ok(());
    };
    let headers: String = reply
        .headers
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    let (status, length, body) = (reply.status, reply.body.len(), reply.body);
    write!(
        stream,
        "HTTP/1.1 {status} Stub\r\ncontent-length: {length}\r\nconnection: close\r\n{headers}\r\n{body}"
    )
}
