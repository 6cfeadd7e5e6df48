//! A client that sends what it is told, byte for byte, and takes no reply on trust.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

/// A server that waits for more than it will get is told after so long that nothing follows.
const PATIENCE: Duration = Duration::from_millis(100);

/// A connection on which all is sent already.
#[derive(Debug)]
pub struct Replies {
    stream: BufReader<TcpStream>,
}

/// A reply with its body.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Reply {
    /// The value of a header; no reply has one twice.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(known, _)| known == name);
        let value = found.next().map(|(_, value)| value.as_str());
        assert!(found.next().is_none(), "several {name}: {:?}", self.headers);
        value
    }
}

impl Replies {
    /// Connects to `address` and sends `bytes`.
    pub fn to(address: SocketAddr, bytes: &[u8]) -> Self {
        let mut stream = TcpStream::connect(address).expect("the server takes connections");
        let timeout = stream.set_read_timeout(Some(PATIENCE));
        timeout.expect("a socket takes a timeout");
        // The server may have closed it before all was sent.
        let _ = stream.write_all(bytes);
        Replies {
            stream: BufReader::new(stream),
        }
    }

    /// The next reply; `None` if the server closed the connection. That of a HEAD has no body.
    ///
    /// # Panics
    /// If it is no reply, or shorter than it says.
    pub fn next(&mut self, is_head: bool) -> Option<Reply> {
        let line = self.line()?;
        let status = line
            .strip_prefix("HTTP/1.1 ")
            .or(line.strip_prefix("HTTP/1.0 "));
        let status = status.and_then(|rest| rest.get(..3)?.parse().ok());
        let status = status.unwrap_or_else(|| panic!("no reply begins with {line:?}"));
        let mut headers = Vec::new();
        loop {
            let line = self.line().expect("a head has an end");
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').expect("it is a header");
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let mut reply = Reply {
            status,
            headers,
            body: Vec::new(),
        };
        let has_body = !is_head && !matches!(status, 100..200 | 204 | 304);
        if has_body {
            let length = reply.header("content-length").map(str::parse::<usize>);
            let length = length.map(|length| length.expect("a length is a number"));
            reply.body = vec![0; length.unwrap_or(0)];
            let mut body = std::mem::take(&mut reply.body);
            self.fill(&mut body);
            reply.body = body;
        }
        Some(reply)
    }

    /// All that comes until the server closes the connection, once nothing more is sent.
    pub fn rest(&mut self) -> Vec<u8> {
        self.end();
        let mut rest = Vec::new();
        // A connection that is reset has lost what it held.
        let _ = self.stream.read_to_end(&mut rest);
        rest
    }

    fn line(&mut self) -> Option<String> {
        let mut line = Vec::new();
        loop {
            match self.stream.read_until(b'\n', &mut line) {
                Ok(0) => break,
                Ok(_) if line.ends_with(b"\n") => break,
                Ok(_) => {}
                Err(error) if is_timeout(&error) => self.end(),
                Err(_) => break,
            }
        }
        if line.is_empty() {
            return None;
        }
        let line = String::from_utf8(line).expect("heads are ASCII");
        Some(line.trim_end_matches(['\r', '\n']).to_owned())
    }

    fn fill(&mut self, mut body: &mut [u8]) {
        while !body.is_empty() {
            match self.stream.read(body) {
                Ok(0) => panic!("{} bytes of a body are missing", body.len()),
                Ok(read) => body = &mut body[read..],
                Err(error) if is_timeout(&error) => {}
                Err(error) => panic!("{} bytes of a body are missing: {error}", body.len()),
            }
        }
    }

    /// Tells the server that nothing more is sent, and waits as long as it takes.
    fn end(&mut self) {
        let stream = self.stream.get_ref();
        let _ = stream.shutdown(Shutdown::Write);
        let _ = stream.set_read_timeout(None);
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}
