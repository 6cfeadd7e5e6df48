//! A plain client: what it sends is what a test says, byte for byte.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

/// A connection to a server.
pub(crate) struct Client {
    stream: BufReader<TcpStream>,
}

/// A response with its whole body.
#[derive(Debug, Clone)]
pub(crate) struct Response {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

/// The head of a response.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
}

impl Head {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }

    pub(crate) fn length(&self) -> usize {
        self.header("content-length").unwrap().parse().unwrap()
    }
}

impl Response {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

fn header<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let mut found = headers.iter().filter(|(known, _)| known == name);
    let value = found.next().map(|(_, value)| value.as_str());
    assert!(found.next().is_none(), "several {name}: {headers:?}");
    value
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Client {
            stream: BufReader::new(TcpStream::connect(address).unwrap()),
        }
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes.as_ref())
    }

    /// Sends `METHOD PATH` with more lines of a head.
    pub(crate) fn ask(&mut self, request: &str, headers: &[&str]) {
        let mut head = format!("{request} HTTP/1.1\r\nHost: test\r\n");
        for header in headers {
            head += &format!("{header}\r\n");
        }
        self.send(head + "\r\n").unwrap();
    }

    pub(crate) fn head(&mut self) -> io::Result<Head> {
        let line = self.line()?;
        let status = line
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok());
        let status = status.unwrap_or_else(|| panic!("no status: {line:?}"));
        let mut headers = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Ok(Head { status, headers });
            }
            let (name, value) = line.split_once(':').unwrap();
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }

    /// `length` bytes of a body.
    pub(crate) fn bytes(&mut self, length: usize) -> io::Result<Vec<u8>> {
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body)?;
        Ok(body)
    }

    /// Everything until the server closes the connection.
    pub(crate) fn rest(&mut self) -> io::Result<Vec<u8>> {
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest).map(|_| rest)
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end().to_owned())
    }

    /// The response to what was sent.
    pub(crate) fn response(&mut self, is_head: bool) -> io::Result<Response> {
        let Head { status, headers } = self.head()?;
        let length = header(&headers, "content-length").map_or(0, |length| length.parse().unwrap());
        let body = match is_head || status == 304 {
            true => Vec::new(),
            false => self.bytes(length)?,
        };
        Ok(Response {
            status,
            headers,
            body,
        })
    }

    /// The response to a request.
    pub(crate) fn get(&mut self, request: &str, headers: &[&str]) -> Response {
        self.ask(request, headers);
        self.response(request.starts_with("HEAD ")).unwrap()
    }
}
