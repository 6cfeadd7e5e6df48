//! Telling the service manager how the mount is, as sd_notify(3) describes.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use ckptfs::error::{Code, Warning};
use ckptfs::shown::Show;

use crate::cli::messages;

/// The environment variable with the socket that a service manager listens on.
const VARIABLE: &str = "NOTIFY_SOCKET";

/// The service manager, if one wants reports.
#[derive(Debug)]
pub(crate) struct ServiceManager(Option<UnixDatagram>);

impl ServiceManager {
    /// None.
    pub(crate) fn none() -> Self {
        ServiceManager(None)
    }

    /// The one that started this process, if any. One that cannot be reached has ended, or is not
    /// that of this process: the variable is inherited.
    pub(crate) fn from_environment() -> Self {
        let Some(name) = env::var_os(VARIABLE).filter(|name| !name.is_empty()) else {
            return ServiceManager::none();
        };
        let socket = connect(&name).inspect_err(|error| {
            let name = name.to_string_lossy();
            let problem = format!("{VARIABLE}={name}: cannot reach the service manager: {error}");
            let warning = Warning::new(Code::from(error), problem);
            eprint!("{}", messages::line("warning", &warning));
        });
        ServiceManager(socket.ok())
    }

    /// The service began and may be used; `status` says what it does.
    pub(crate) fn ready(&self, status: &str) {
        self.tell("READY=1\n", status);
    }

    /// The service is about to end.
    pub(crate) fn stopping(&self, status: &str) {
        self.tell("STOPPING=1\n", status);
    }

    pub(crate) fn status(&self, status: &str) {
        self.tell("", status);
    }

    fn tell(&self, change: &str, status: &str) {
        let Some(socket) = &self.0 else { return };
        // Each report of one thing is a line.
        let message = format!("{change}STATUS={}", status.replace('\n', "; ").shown());
        if let Err(error) = socket.send(message.as_bytes()) {
            log::warn!("cannot send {message:?} to the service manager: {error}");
        }
    }
}

/// Connects to the socket at the path `name`, or with `@` before it, of that abstract name.
fn connect(name: &OsStr) -> io::Result<UnixDatagram> {
    let address = match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        [b'/', ..] => SocketAddr::from_pathname(name)?,
        _ => {
            return Err(io::Error::other(
                "this is neither a path from / nor an abstract name from @",
            ));
        }
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    Ok(socket)
}
