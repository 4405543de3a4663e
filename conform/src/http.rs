//! HTTP/1.1 as it is on the wire: a client that sees each chunk, since v1 clients take a chunk for a
//! record (semantics R1), and a time for everything.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

/// The largest head of an answer.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// The most headers of an answer.
const HEADERS_MAX: usize = 100;
/// The largest chunk, and the largest body: the whole state of a large cluster.
const BODY_BYTES_MAX: usize = 256 << 20;
/// The longest line before a chunk: its length and extensions.
const CHUNK_LINE_MAX: usize = 1 << 10;

/// Why there is no answer, or no more of it.
#[derive(Debug)]
pub enum Broken {
    /// Nobody listens there.
    Unreachable(std::io::Error),
    /// The connection broke.
    Io(std::io::Error),
    /// Not within the time.
    Late(Duration),
    /// It is no HTTP/1.1.
    Malformed(&'static str),
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unreachable(error) => write!(f, "cannot connect: {error}"),
            Self::Io(error) => write!(f, "the connection broke: {error}"),
            Self::Late(time) => write!(f, "no answer within {time:?}"),
            Self::Malformed(what) => write!(f, "the answer is no HTTP/1.1: {what}"),
        }
    }
}

impl std::error::Error for Broken {}

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Such as `POST`.
    pub method: &'a str,
    /// With its query.
    pub path: &'a str,
    /// `Host`, `Content-Length` and `Connection: close` are added.
    pub headers: &'a [(&'a str, &'a str)],
    /// The body.
    pub body: &'a [u8],
}

/// The head of an answer, and the rest as it comes.
#[derive(Debug)]
pub struct Reply {
    /// The status code.
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    stream: TcpStream,
    /// What has been received and not been taken.
    buffer: Vec<u8>,
    length: Length,
}

/// How the end of a body is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Length {
    /// So many bytes are to come.
    Known(usize),
    Chunked,
    /// The connection ends with it.
    ToEnd,
    /// All has been taken.
    Over,
}

/// What comes next of a body.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece {
    /// A chunk, as the server has made it; of a body that is not chunked, all of it or what there is.
    Chunk(Vec<u8>),
    /// Nothing any more.
    End,
    /// Nothing within the time.
    Nothing,
}

enum Filled {
    More,
    End,
    Late,
}

/// Sends a request over a connection of its own, and waits for the head of the answer.
///
/// # Errors
/// [`Broken`].
pub fn send(address: &str, request: &Request, within: Duration) -> Result<Reply, Broken> {
    let deadline = Instant::now() + within;
    let found = address.to_socket_addrs().map_err(Broken::Unreachable)?;
    let mut failed = std::io::Error::new(ErrorKind::NotFound, "no such host");
    let mut connected = None;
    for one in found {
        match TcpStream::connect_timeout(&one, within) {
            Ok(stream) => {
                connected = Some(stream);
                break;
            }
            Err(error) => failed = error,
        }
    }
    let mut stream = connected.ok_or(Broken::Unreachable(failed))?;
    let mut text = format!("{} {} HTTP/1.1\r\n", request.method, request.path);
    let length = request.body.len().to_string();
    let own = [
        ("Host", address),
        ("Connection", "close"),
        ("Content-Length", length.as_str()),
    ];
    for (name, value) in own.iter().chain(request.headers) {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    let mut bytes = text.into_bytes();
    bytes.extend_from_slice(request.body);
    stream.set_nodelay(true).map_err(Broken::Io)?;
    stream.set_write_timeout(Some(within)).map_err(Broken::Io)?;
    stream.write_all(&bytes).map_err(Broken::Io)?;
    Reply::read(stream, deadline, within)
}

impl Reply {
    fn read(stream: TcpStream, deadline: Instant, within: Duration) -> Result<Self, Broken> {
        let mut reply = Self {
            status: 0,
            headers: Vec::new(),
            stream,
            buffer: Vec::new(),
            length: Length::Over,
        };
        while !reply.has_head()? {
            match reply.fill(deadline)? {
                Filled::More if reply.buffer.len() > HEAD_BYTES_MAX => {
                    return Err(Broken::Malformed("its head is too long"));
                }
                Filled::More => {}
                Filled::End => return Err(Broken::Malformed("it ends within its head")),
                Filled::Late => return Err(Broken::Late(within)),
            }
        }
        Ok(reply)
    }

    /// Takes the head from the buffer, if all of it is there.
    fn has_head(&mut self) -> Result<bool, Broken> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut head = httparse::Response::new(&mut headers);
        let parsed = head
            .parse(&self.buffer)
            .map_err(|_| Broken::Malformed("its head cannot be read"))?;
        let httparse::Status::Complete(taken) = parsed else {
            return Ok(false);
        };
        self.status = head.code.unwrap_or_default();
        let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
        let headers = head.headers.iter();
        self.headers = headers
            .map(|it| (it.name.to_lowercase(), text(it.value)))
            .collect();
        self.buffer.drain(..taken);
        let is_chunked = self
            .header("transfer-encoding")
            .is_some_and(|it| it.eq_ignore_ascii_case("chunked"));
        let known = self.header("content-length").map(str::parse);
        self.length = match (is_chunked, known) {
            (true, _) => Length::Chunked,
            (false, Some(Ok(length))) if length <= BODY_BYTES_MAX => Length::Known(length),
            (false, Some(_)) => return Err(Broken::Malformed("its length")),
            (false, None) if matches!(self.status, 204 | 304) => Length::Over,
            (false, None) => Length::ToEnd,
        };
        Ok(true)
    }

    /// The value of a header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers
            .find(|(given, _)| given == name)
            .map(|(_, value)| value.as_str())
    }

    /// Whether the body comes in chunks.
    #[must_use]
    pub fn is_chunked(&self) -> bool {
        self.header("transfer-encoding")
            .is_some_and(|it| it.eq_ignore_ascii_case("chunked"))
    }

    /// The next piece of the body.
    ///
    /// # Errors
    /// [`Broken`]; nothing more can be read.
    pub fn next(&mut self, deadline: Instant) -> Result<Piece, Broken> {
        loop {
            if let Some(piece) = self.take()? {
                return Ok(piece);
            }
            match self.fill(deadline)? {
                Filled::More => {}
                Filled::Late => return Ok(Piece::Nothing),
                Filled::End if self.length == Length::ToEnd => {
                    self.length = Length::Over;
                    return Ok(Piece::End);
                }
                Filled::End => return Err(Broken::Malformed("it ends within its body")),
            }
        }
    }

    /// A piece that is in the buffer.
    fn take(&mut self) -> Result<Option<Piece>, Broken> {
        match self.length {
            Length::Over => Ok(Some(Piece::End)),
            Length::Known(0) => {
                self.length = Length::Over;
                Ok(Some(Piece::End))
            }
            Length::Known(missing) if self.buffer.len() >= missing => {
                self.length = Length::Known(0);
                let rest = self.buffer.split_off(missing);
                Ok(Some(Piece::Chunk(std::mem::replace(
                    &mut self.buffer,
                    rest,
                ))))
            }
            Length::Known(_) => Ok(None),
            Length::ToEnd if self.buffer.is_empty() => Ok(None),
            Length::ToEnd => Ok(Some(Piece::Chunk(std::mem::take(&mut self.buffer)))),
            Length::Chunked => self.take_chunk(),
        }
    }

    fn take_chunk(&mut self) -> Result<Option<Piece>, Broken> {
        let bad = Broken::Malformed("the length of a chunk");
        let Some(end) = self.buffer.windows(2).position(|two| two == b"\r\n") else {
            return match self.buffer.len() > CHUNK_LINE_MAX {
                true => Err(bad),
                false => Ok(None),
            };
        };
        let line = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
        let digits = line.split(';').next().unwrap_or_default().trim();
        let length = usize::from_str_radix(digits, 16).ok();
        let length = length.filter(|it| *it <= BODY_BYTES_MAX).ok_or(bad)?;
        let begin = end + 2;
        if self.buffer.len() < begin + length + 2 {
            return Ok(None);
        }
        let chunk = self.buffer[begin..begin + length].to_vec();
        self.buffer.drain(..begin + length + 2);
        if length == 0 {
            self.length = Length::Over;
            return Ok(Some(Piece::End));
        }
        Ok(Some(Piece::Chunk(chunk)))
    }

    /// The whole body.
    ///
    /// # Errors
    /// [`Broken`].
    pub fn body(&mut self, within: Duration) -> Result<Vec<u8>, Broken> {
        let deadline = Instant::now() + within;
        let mut body = Vec::new();
        loop {
            match self.next(deadline)? {
                Piece::Chunk(chunk) if body.len() + chunk.len() <= BODY_BYTES_MAX => {
                    body.extend(chunk);
                }
                Piece::Chunk(_) => return Err(Broken::Malformed("its body is too long")),
                Piece::End => return Ok(body),
                Piece::Nothing => return Err(Broken::Late(within)),
            }
        }
    }

    fn fill(&mut self, deadline: Instant) -> Result<Filled, Broken> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(Filled::Late);
        }
        let timeout = Some(left.max(Duration::from_millis(1)));
        self.stream.set_read_timeout(timeout).map_err(Broken::Io)?;
        let mut piece = [0; 16 << 10];
        match self.stream.read(&mut piece) {
            Ok(0) => Ok(Filled::End),
            Ok(read) => {
                self.buffer.extend_from_slice(&piece[..read]);
                Ok(Filled::More)
            }
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut => Ok(Filled::Late),
                ErrorKind::Interrupted => Ok(Filled::More),
                _ => Err(Broken::Io(error)),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    /// A server that says this to whoever comes, and ends.
    fn says(text: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound").to_string();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a client");
            let mut asked = [0; 1 << 10];
            let _ = stream.read(&mut asked).expect("a request");
            stream.write_all(text.as_bytes()).expect("it reads");
        });
        address
    }

    fn asked(address: &str) -> Result<Reply, Broken> {
        let request = Request {
            method: "GET",
            path: "/",
            headers: &[],
            body: b"",
        };
        send(address, &request, PATIENCE)
    }

    #[test]
    fn chunks_are_seen_as_the_server_made_them() {
        let address = says(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1;x=y\r\nd\r\n0\r\n\r\n",
        );
        let mut reply = asked(&address).expect("an answer");
        assert!(reply.is_chunked());
        let deadline = Instant::now() + PATIENCE;
        for chunk in ["abc", "d"] {
            let next = reply.next(deadline).expect("well framed");
            assert_eq!(next, Piece::Chunk(chunk.into()));
        }
        assert_eq!(reply.next(deadline).expect("over"), Piece::End);
    }

    #[test]
    fn a_body_has_its_length_or_ends_with_the_connection() {
        let address = says("HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\nhi");
        let mut reply = asked(&address).expect("an answer");
        assert_eq!(
            (reply.status, reply.body(PATIENCE).expect("two")),
            (202, b"hi".to_vec())
        );
        let address = says("HTTP/1.1 200 OK\r\n\r\nhello");
        let mut reply = asked(&address).expect("an answer");
        assert_eq!(reply.body(PATIENCE).expect("all"), b"hello");
    }

    #[test]
    fn what_is_no_http_is_said_to_be_none() {
        for text in [
            "SSH-2.0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
            "HTTP/1.1 200",
        ] {
            let read = asked(&says(text));
            assert!(matches!(read, Err(Broken::Malformed(_))), "{text:?}");
        }
        let address = says("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n");
        let body = asked(&address).expect("a head").body(PATIENCE);
        assert!(matches!(body, Err(Broken::Malformed(_))));
    }
}
