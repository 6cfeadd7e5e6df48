//! `ckptfs top`: the figures of a mount, live.

mod draw;
mod model;
#[cfg(test)]
mod tests;

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use ckptfs::error::{Code, Error};
use ckptfs::fuse::{Answer, OurMount, mount_at};
use ckptfs::shown::Show;

use crate::cli::status::{ask_for_figures, parse_seconds};
use crate::cli::top::model::Model;

/// What to watch.
#[derive(Debug, Args)]
pub(crate) struct TopArgs {
    /// Mountpoint of the view
    mountpoint: PathBuf,

    /// Seconds between updates
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = parse_seconds)]
    interval: Duration,
}

/// How long a mount may take to answer before it is said not to.
const PATIENCE: Duration = Duration::from_secs(3);

/// How long a signal or an answer may wait to be seen.
const TICK: Duration = Duration::from_millis(50);

/// Shows the figures until `q`, or a signal to end.
pub(crate) fn run(args: &TopArgs) -> anyhow::Result<ExitCode> {
    let mount = mount_at(&args.mountpoint)?;
    if !io::stdout().is_terminal() {
        let error = Error::new(
            Code::NoTerminal,
            "top draws on a terminal, and standard output is none",
        );
        let json = format!(
            "for programs there is: ckptfs status --json {}",
            mount.mountpoint.shown()
        );
        return Err(error.with_hint(json).into());
    }
    let ended = Arc::new(AtomicUsize::new(0));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register_usize(signal, ended.clone(), signal as usize)?;
    }
    let model = Model::new(mount.mountpoint.shown().to_string());
    let answers = watch(mount, args.interval)?;
    // This has panics put the terminal back as it was, too.
    let mut terminal = ratatui::try_init()?;
    let result = show(&mut terminal, model, &answers, &ended);
    ratatui::try_restore()?;
    result?;
    Ok(match ended.load(Ordering::Relaxed) {
        0 => ExitCode::SUCCESS,
        signal => ExitCode::from(128 + signal as u8),
    })
}

/// Asks `mount` every `interval`, on a thread of its own.
fn watch(mount: OurMount, interval: Duration) -> io::Result<Receiver<Option<Answer>>> {
    let (tell, answers) = mpsc::sync_channel(1);
    let look = move || {
        loop {
            let begun = Instant::now();
            if tell.send(ask_for_figures(&mount, PATIENCE)).is_err() {
                return;
            }
            thread::sleep(interval.saturating_sub(begun.elapsed()));
        }
    };
    thread::Builder::new().spawn(look)?;
    Ok(answers)
}

fn show(
    terminal: &mut DefaultTerminal,
    mut model: Model,
    answers: &Receiver<Option<Answer>>,
    ended: &AtomicUsize,
) -> io::Result<()> {
    let mut changed = true;
    while ended.load(Ordering::Relaxed) == 0 {
        for answer in answers.try_iter() {
            model.take(answer, PATIENCE);
            changed = true;
        }
        if changed {
            terminal.draw(|frame| draw::draw(frame, &model))?;
        }
        changed = event::poll(TICK)?;
        if changed && let Event::Key(key) = event::read()? {
            match wish(key) {
                Some(Wish::Quit) => return Ok(()),
                Some(Wish::Sort) => model.order = model.order.next(),
                None => {}
            }
        }
    }
    Ok(())
}

enum Wish {
    Quit,
    Sort,
}

fn wish(key: KeyEvent) -> Option<Wish> {
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    match key.code {
        _ if key.kind == KeyEventKind::Release => None,
        KeyCode::Char('c') if control => Some(Wish::Quit),
        KeyCode::Char('q') | KeyCode::Esc => Some(Wish::Quit),
        KeyCode::Char('s') => Some(Wish::Sort),
        _ => None,
    }
}
