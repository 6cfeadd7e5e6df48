//! `ckptfs serve`

use std::fs::File;
use std::io::Read as _;
use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use clap::Args;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use ckptfs::error::{Code, Error, Warning};
use ckptfs::outputs::OutputCheck;
use ckptfs::read::{FactsCache, Reader};
use ckptfs::recipe::{ViewRequest, parse_size};
use ckptfs::serve::{Options, RepoName, Serving, Stopper, Token, serve};

use crate::cli::args::ViewArgs;
use crate::cli::messages::{self, flag};
use crate::cli::service::ServiceManager;
use crate::cli::{allocator, logging, plan, signals};

/// The heading of these flags.
const SERVE: &str = "Serve";

/// How to serve.
#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// Address and port to listen on; port 0 takes a free one. What is not a loopback address is open to
    /// all who reach it, unless there is a token
    #[arg(long, help_heading = SERVE, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8000")]
    listen: String,

    /// Name of the repository, such as org/model [default: ckptfs/ and the name of the base or recipe]
    #[arg(long, help_heading = SERVE, value_name = "NAME", value_parser = RepoName::parse)]
    name: Option<RepoName>,

    /// Serve only clients that send the token in FILE (HF_TOKEN, or `Authorization: Bearer TOKEN`)
    #[arg(long, help_heading = SERVE, value_name = "FILE")]
    token_file: Option<PathBuf>,

    /// Maximum number of open connections; others wait. Each takes up to 3 MiB of memory
    #[arg(long, help_heading = SERVE, value_name = "N", default_value_t = CONNECTIONS)]
    connections: NonZeroUsize,

    /// Seconds that running transfers have to end after SIGTERM or SIGINT; a second signal cuts them off
    #[arg(long, help_heading = SERVE, value_name = "SECONDS", default_value_t = Options::GRACE.as_secs())]
    grace: u64,

    /// Memory for computed tensor data
    #[arg(long, help_heading = SERVE, value_name = "SIZE", default_value = "256MiB", value_parser = parse_size)]
    cache_size: u64,

    /// Keep facts about whole tensors (norms, merge thresholds) in DIR for the next run; facts about
    /// changed sources are not used
    #[arg(long, help_heading = SERVE, value_name = "DIR")]
    facts_cache: Option<PathBuf>,

    /// Read source data that is not cached with O_DIRECT: faster from most disks, and it does not
    /// evict other files from the page cache
    #[arg(long, help_heading = SERVE)]
    direct_sources: bool,
}

const CONNECTIONS: NonZeroUsize = NonZeroUsize::new(Options::CONNECTIONS).expect("it is not 0");

/// Serves a view until a signal ends it.
pub(crate) fn run(view: &ViewArgs, args: &ServeArgs, quiet: bool) -> anyhow::Result<()> {
    allocator::set_nothing_aside();
    let service = ServiceManager::from_environment();
    service.status("planning the view");
    let request = view.request()?;
    let plan = request.plan()?;
    let name = args.name.clone().unwrap_or_else(|| name_of(view, &request));
    let token = args.token_file.as_deref().map(token).transpose()?;
    let mut reader = Reader::new(
        plan.view.clone(),
        usize::try_from(args.cache_size).unwrap_or(usize::MAX),
    );
    if args.direct_sources {
        reader = reader.with_direct_sources();
    }
    if let Some(directory) = &args.facts_cache {
        OutputCheck::new(&request.inputs(), &plan.view)?.check(directory)?;
        reader = reader.with_facts_cache(FactsCache::new(directory)?);
    }
    let listener = listen(&args.listen)?;
    if !quiet {
        plan::print_summary(&plan)?;
    }
    let address = listener.local_addr()?;
    if token.is_none() && !address.ip().is_loopback() {
        let problem = format!("everybody who reaches {address} can read the view");
        let warning = Warning::new(Code::NoToken, problem);
        let hint = "use --token-file, or listen on 127.0.0.1";
        eprint!("{}", messages::line("warning", &warning.with_hint(hint)));
    }
    logging::start(std::io::stderr());
    // From here on, so that no signal ends the process before it can be obeyed.
    let signals = [SIGINT, SIGTERM, SIGHUP].into_iter();
    let signals = Signals::new(signals.filter(|signal| !signals::is_ignored(*signal)))?;
    let options = Options {
        token,
        connections: args.connections.get(),
        grace: Duration::from_secs(args.grace),
        ..Options::new(name.clone(), flag)
    };
    let serving = serve(Arc::new(reader), listener, options)
        .map_err(|e| Error::io("serve", &args.listen, e))?;
    stop_at(signals, serving.stopper())?;
    plan::to_stdout(&lines(&serving, &name))?;
    service.ready(&format!("serving {name} on {address}"));
    let cut = serving.wait();
    service.stopping("stopped");
    match cut {
        Ok(0) => log::info!("stopped"),
        Ok(cut) => log::warn!("stopped: {cut} connections were cut off"),
        Err(_) => return Err(Error::new(Code::Internal, "the server panicked").into()),
    }
    Ok(())
}

/// What clients have to know.
fn lines(serving: &Serving, name: &RepoName) -> String {
    let address = reachable(serving.address());
    format!(
        "serve  {name} at commit {}\n       HF_ENDPOINT=http://{address} hf download {name}\n       http://{address}/\n",
        serving.commit()
    )
}

/// An address to connect to, where the server listens on all.
fn reachable(address: SocketAddr) -> String {
    match address.ip().is_unspecified() {
        true => format!("HOST:{}", address.port()),
        false => address.to_string(),
    }
}

/// The name of a view that nobody named.
fn name_of(view: &ViewArgs, request: &ViewRequest) -> RepoName {
    let name = match &view.recipe {
        Some(recipe) => recipe.file_stem(),
        None => request.base.as_path().file_name(),
    };
    RepoName::of_source(&name.unwrap_or_default().to_string_lossy())
}

fn listen(address: &str) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(address);
    Ok(listener.map_err(|e| Error::io("listen", address, e))?)
}

/// The token in the file at `path`.
fn token(path: &Path) -> anyhow::Result<Token> {
    /// No token is as long.
    const MAX_BYTES: u64 = 4096;
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(MAX_BYTES).read_to_string(&mut text));
    read.map_err(|e| Error::io("read the token", path, e))?;
    let token = Token::new(text.trim());
    Ok(token.map_err(|problem| Error::of_file(Code::BadValue, path, problem))?)
}

/// Stops the server at the first signal, and cuts transfers off at the second.
fn stop_at(mut signals: Signals, stopper: Stopper) -> std::io::Result<()> {
    let obey = move || {
        for _ in signals.forever() {
            log::info!("asked to stop: taking no more requests");
            stopper.stop();
        }
    };
    let thread = thread::Builder::new().name("signals".to_owned());
    thread.spawn(obey).map(drop)
}
