//! The faster ways of doing things, each of which can be switched off from outside.
//!
//! None of them changes a byte. Switching them off shows whether a fault lies in one of them, and
//! lets tests hold with and without each.

use std::env;
use std::sync::LazyLock;

use crate::error::{Code, Error, Result};

/// The environment variable that names the fast paths to do without, separated by commas; `all`
/// stands for every one.
pub const VARIABLE: &str = "CKPTFS_DISABLE";

/// A faster way of doing something that there is a plain way for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FastPath {
    /// Kernels that use AVX-512.
    Avx512,
    /// Kernels that use AVX2.
    Avx2,
    /// Kernels that use NEON.
    Neon,
    /// Files that are whole source files, read by the operating system's kernel itself.
    Passthrough,
    /// Files opened without asking the process that serves the mount.
    SilentOpen,
    /// Reading ahead of sequential readers further than the operating system does by itself.
    ReadAhead,
    /// Sources read past the page cache, if that was asked for.
    DirectSources,
    /// Unchanged ranges copied or shared by the kernel when a view is written to disk.
    KernelCopy,
    /// A directory or file that takes another's place by an exchange of their names.
    Exchange,
}

impl FastPath {
    const ALL: [FastPath; 9] = [
        FastPath::Avx512,
        FastPath::Avx2,
        FastPath::Neon,
        FastPath::Passthrough,
        FastPath::SilentOpen,
        FastPath::ReadAhead,
        FastPath::DirectSources,
        FastPath::KernelCopy,
        FastPath::Exchange,
    ];

    fn name(self) -> &'static str {
        match self {
            FastPath::Avx512 => "avx512",
            FastPath::Avx2 => "avx2",
            FastPath::Neon => "neon",
            FastPath::Passthrough => "passthrough",
            FastPath::SilentOpen => "silent-open",
            FastPath::ReadAhead => "readahead",
            FastPath::DirectSources => "direct-sources",
            FastPath::KernelCopy => "kernel-copy",
            FastPath::Exchange => "exchange",
        }
    }

    /// Whether this may be used.
    pub fn is_enabled(self) -> bool {
        static DISABLED: LazyLock<Vec<FastPath>> = LazyLock::new(|| disabled().unwrap_or_default());
        !DISABLED.contains(&self)
    }

    /// Checks what the environment says.
    ///
    /// # Errors
    /// If it names something that is not a fast path.
    pub fn check_environment() -> Result<()> {
        disabled().map(drop)
    }
}

fn disabled() -> Result<Vec<FastPath>> {
    match env::var_os(VARIABLE) {
        None => Ok(Vec::new()),
        Some(value) => parse(&value.to_string_lossy()),
    }
}

fn parse(value: &str) -> Result<Vec<FastPath>> {
    let names = value.split(',').map(str::trim);
    let mut disabled = Vec::new();
    for name in names.filter(|name| !name.is_empty()) {
        if name == "all" {
            disabled.extend(FastPath::ALL);
            continue;
        }
        let Some(path) = FastPath::ALL.into_iter().find(|path| path.name() == name) else {
            let known = FastPath::ALL.map(FastPath::name).join(", ");
            return Err(Error::new(
                Code::BadValue,
                format!("{VARIABLE}: {name:?} is not a fast path; known are {known}, and all"),
            ));
        };
        disabled.push(path);
    }
    Ok(disabled)
}
