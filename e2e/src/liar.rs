//! A proxy that says something else than the server behind it: what a conformance suite must find.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use meros_conform::http::{Piece, Reply, Request, send};

/// Far longer than any answer takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// Between two looks whether a client is still there.
const GLANCE: Duration = Duration::from_millis(20);

/// What is different.
#[derive(Debug, Clone, Copy)]
pub enum Change {
    /// The status code, where it was the first.
    Status(u16, u16),
    /// A header: its value, or none.
    Header(&'static str, Option<&'static str>),
    /// Every occurrence in the body or in a record of a stream.
    Text(&'static str, &'static str),
    /// Records whose text has this are left out.
    Without(&'static str),
    /// A record comes in two chunks.
    Split,
    /// Another body; of a stream, each chunk.
    Body(&'static str),
    /// Every record of a stream is this one.
    Record(&'static str),
}

/// What is different, and in which answers.
#[derive(Debug, Clone, Copy)]
pub struct Lie {
    /// Part of the request: of its first line or its body.
    pub when: &'static str,
    /// How.
    pub change: Change,
}

/// The proxy. It ends when it is dropped; streams that are open end with their clients.
#[derive(Debug)]
pub struct Liar {
    address: String,
    is_over: Arc<AtomicBool>,
}

impl Liar {
    /// Between clients and the server at `behind`.
    ///
    /// # Panics
    /// There is no free port.
    #[must_use]
    pub fn start(behind: &str, lie: Lie) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound").to_string();
        let is_over = Arc::<AtomicBool>::default();
        let (behind, over) = (behind.to_owned(), Arc::clone(&is_over));
        std::thread::spawn(move || {
            for client in listener.incoming() {
                if over.load(Ordering::Relaxed) {
                    return;
                }
                let (Ok(client), behind) = (client, behind.clone()) else {
                    return;
                };
                // A client that goes away in the middle is none of our business.
                std::thread::spawn(move || drop(serve(client, &behind, lie)));
            }
        });
        Self { address, is_over }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }
}

impl Drop for Liar {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        // So that it looks.
        drop(TcpStream::connect(&self.address));
    }
}

/// One request and its answer.
fn serve(mut client: TcpStream, behind: &str, lie: Lie) -> std::io::Result<()> {
    client.set_read_timeout(Some(PATIENCE))?;
    client.set_write_timeout(Some(PATIENCE))?;
    let (head, body) = request(&mut client)?;
    let mut lines = head.split("\r\n");
    let first = lines.next().unwrap_or_default();
    let mut words = first.split(' ');
    let (method, path) = (
        words.next().unwrap_or_default(),
        words.next().unwrap_or_default(),
    );
    let headers: Vec<(&str, &str)> = lines
        .filter_map(|line| line.split_once(": "))
        .filter(|(name, _)| !["Host", "Connection", "Content-Length"].contains(name))
        .collect();
    let is_lie = first.contains(lie.when) || String::from_utf8_lossy(&body).contains(lie.when);
    let asked = Request {
        method,
        path,
        headers: &headers,
        body: &body,
    };
    let reply = send(behind, &asked, PATIENCE).map_err(std::io::Error::other)?;
    answer(client, reply, is_lie.then_some(lie.change))
}

fn request(client: &mut TcpStream) -> std::io::Result<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    let mut piece = [0; 4 << 10];
    loop {
        let read = client.read(&mut piece)?;
        bytes.extend_from_slice(&piece[..read]);
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
        if let Some(end) = end {
            let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
            let length = head
                .split("\r\n")
                .find_map(|line| line.strip_prefix("Content-Length: ")?.parse().ok())
                .unwrap_or(0);
            if bytes.len() >= end + 4 + length {
                return Ok((head, bytes[end + 4..].to_vec()));
            }
        }
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
}

fn answer(mut client: TcpStream, mut reply: Reply, change: Option<Change>) -> std::io::Result<()> {
    let status = match change {
        Some(Change::Status(from, to)) if reply.status == from => to,
        _ => reply.status,
    };
    let is_stream = reply.is_chunked();
    let mut head = format!("HTTP/1.1 {status} As-It-Is\r\nConnection: close\r\n");
    let own = ["connection", "content-length", "transfer-encoding"];
    let changed = match change {
        Some(Change::Header(name, value)) => Some((name, value)),
        _ => None,
    };
    for (name, value) in &reply.headers {
        if !own.contains(&name.as_str()) && changed.is_none_or(|(changed, _)| changed != name) {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
    }
    if let Some((name, Some(value))) = changed {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if !is_stream {
        let body = reply.body(PATIENCE).map_err(std::io::Error::other)?;
        let body = match change {
            Some(Change::Body(other)) => other.into(),
            _ => text(body, change),
        };
        head.push_str(&format!("content-length: {}\r\n\r\n", body.len()));
        client.write_all(head.as_bytes())?;
        return client.write_all(&body);
    }
    head.push_str("transfer-encoding: chunked\r\n\r\n");
    client.write_all(head.as_bytes())?;
    stream(client, reply, change)
}

fn text(body: Vec<u8>, change: Option<Change>) -> Vec<u8> {
    let Some(Change::Text(from, to)) = change else {
        return body;
    };
    match String::from_utf8(body) {
        Ok(text) => text.replace(from, to).into_bytes(),
        // Protobuf.
        Err(other) => other.into_bytes(),
    }
}

fn stream(client: TcpStream, mut reply: Reply, change: Option<Change>) -> std::io::Result<()> {
    let chunk = |bytes: &[u8]| -> std::io::Result<()> {
        let mut out = format!("{:x}\r\n", bytes.len()).into_bytes();
        out.extend_from_slice(bytes);
        out.extend_from_slice(b"\r\n");
        (&client).write_all(&out)
    };
    client.set_read_timeout(Some(Duration::from_millis(1)))?;
    loop {
        match reply
            .next(Instant::now() + GLANCE)
            .map_err(std::io::Error::other)?
        {
            // The server behind is to hear of a client that has gone.
            Piece::Nothing if client.peek(&mut [0]).is_ok_and(|read| read == 0) => return Ok(()),
            Piece::Nothing => {}
            Piece::End => return chunk(b""),
            // The server behind makes one chunk of each record.
            Piece::Chunk(record) => {
                let line = record.iter().position(|byte| *byte == b'\n').unwrap_or(0);
                let body = record[line + 1..].to_vec();
                match change {
                    Some(Change::Without(word))
                        if String::from_utf8_lossy(&body).contains(word) => {}
                    Some(Change::Split) => {
                        chunk(&record[..=line])?;
                        chunk(&body)?;
                    }
                    Some(Change::Body(other)) => chunk(other.as_bytes())?,
                    _ => {
                        let body = match change {
                            Some(Change::Record(other)) => other.into(),
                            _ => text(body, change),
                        };
                        let mut record = format!("{}\n", body.len()).into_bytes();
                        record.extend(body);
                        chunk(&record)?;
                    }
                }
            }
        }
    }
}
