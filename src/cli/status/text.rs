//! The state of mounts for people.

use std::fmt::Write as _;

use indicatif::BinaryBytes;

use ckptfs::shown::Show;
use ckptfs::stats::{PersistState, PersistStats, PrefetchState, PrefetchStats, Snapshot};

use crate::cli::status::mount_status::{MountStatus, State};

/// "1.50 GiB"
pub(crate) fn bytes(count: u64) -> String {
    BinaryBytes(count).to_string()
}

/// "2d 3h", "3h 12m", "12m 5s" or "5s"
pub(crate) fn duration(seconds: f64) -> String {
    let seconds = seconds as u64;
    let (days, hours) = (seconds / 86_400, seconds / 3600 % 24);
    let (minutes, rest) = (seconds / 60 % 60, seconds % 60);
    match seconds {
        86_400.. => format!("{days}d {hours}h"),
        3600.. => format!("{hours}h {minutes}m"),
        60.. => format!("{minutes}m {rest}s"),
        _ => format!("{rest}s"),
    }
}

/// "12 µs", "1.3 ms" or "2.05 s"
pub(crate) fn micros(us: f64) -> String {
    match us {
        1e6.. => format!("{:.2} s", us / 1e6),
        1e3.. => format!("{:.1} ms", us / 1e3),
        _ => format!("{us:.0} µs"),
    }
}

pub(super) fn render(statuses: &[MountStatus]) -> String {
    if statuses.is_empty() {
        return "no view is mounted here\n".to_owned();
    }
    let blocks: Vec<String> = statuses.iter().map(block).collect();
    blocks.join("\n")
}

fn block(status: &MountStatus) -> String {
    let state = match status.state {
        State::Serving => "serving",
        State::Dead => "DEAD",
        State::Silent => "DOES NOT ANSWER",
        State::Unreadable => "unreadable",
        State::Covered => "covered",
    };
    let mut text = format!("{}  {state}", status.mountpoint.shown());
    match &status.stats {
        Some(stats) => text += &figures(stats),
        None => {
            let _ = write!(text, "\n  base         {}\n", status.source.shown());
        }
    }
    if let (Some(code), Some(problem)) = (status.code, &status.problem) {
        let _ = writeln!(text, "  problem      [{code}] {}", problem.shown());
    }
    let readers = status.readers.iter().flatten();
    for (position, reader) in readers.enumerate() {
        let label = if position == 0 { "readers" } else { "" };
        let (pid, name) = (reader.pid, reader.name.shown());
        let _ = writeln!(
            text,
            "  {label:<11}  {pid} ({name}): {} {}",
            reader.how,
            reader.path.shown()
        );
    }
    text
}

fn figures(stats: &Snapshot) -> String {
    let Snapshot {
        requests,
        served,
        passthrough,
        cache,
        tiles,
        facts,
        ..
    } = stats;
    let mut text = format!(
        ", process {}, for {}\n",
        stats.pid,
        duration(stats.uptime_seconds)
    );
    let mut line = |label: &str, value: String| {
        let _ = writeln!(text, "  {label:<11}  {value}");
    };
    line("view", stats.view.request.shown().to_string());
    line(
        "served",
        format!(
            "{} computed, {} spliced, {} made; {} reads, {} errors",
            bytes(served.computed_bytes),
            bytes(served.spliced_bytes),
            bytes(served.made_bytes),
            requests.reads,
            requests.errors
        ),
    );
    if passthrough.openings > 0 {
        line(
            "passthrough",
            format!(
                "{} openings of {} in files, {} open now (the kernel does not report what it reads)",
                passthrough.openings,
                bytes(passthrough.openings_file_bytes),
                passthrough.open_handles
            ),
        );
    }
    if let Some(stats) = &stats.persist {
        line("persist", persist(stats));
    }
    if let Some(stats) = &stats.prefetch {
        line("prefetch", prefetch(stats));
    }
    line(
        "cache",
        format!(
            "{} of {}, {} of tiles found there",
            bytes(cache.bytes),
            bytes(cache.capacity_bytes),
            percent(cache.hits, cache.misses)
        ),
    );
    line(
        "tiles",
        match tiles.computed {
            0 => "none computed".to_owned(),
            count => format!(
                "{count} computed, {} ahead; half within {}, 99 % within {}",
                tiles.computed_ahead,
                micros(tiles.latency.p50_us),
                micros(tiles.latency.p99_us)
            ),
        },
    );
    if facts.surveys > 0 {
        line(
            "facts",
            format!("{} tensors, {}", facts.surveys, duration(facts.seconds)),
        );
    }
    text
}

/// "1.00 GiB of 2.00 GiB, 3 of 6 files in /data/out; writing"
pub(crate) fn persist(stats: &PersistStats) -> String {
    let state = match (stats.state, &stats.error) {
        (PersistState::Writing, _) => "writing".to_owned(),
        (PersistState::Complete, _) => "complete".to_owned(),
        (PersistState::Stopped, _) => "stopped".to_owned(),
        (PersistState::Failed, error) => {
            format!("FAILED: {}", error.as_deref().unwrap_or_default().shown())
        }
    };
    format!(
        "{} of {}, {} of {} files in {}; {state}",
        bytes(stats.bytes_written),
        bytes(stats.bytes),
        stats.files_complete,
        stats.files,
        stats.directory.shown()
    )
}

/// "1.00 GiB of 2.00 GiB; reading"
pub(crate) fn prefetch(stats: &PrefetchStats) -> String {
    let state = match stats.state {
        PrefetchState::Reading => "reading",
        PrefetchState::Complete => "complete",
        PrefetchState::NoMemory => "stopped: more would push others out of memory",
        PrefetchState::Stopped => "stopped",
    };
    let (done, all) = (bytes(stats.bytes_done), bytes(stats.bytes));
    format!("{done} of {all}; {state}")
}

/// "97 %" of hits, or "–" if there were no lookups.
pub(crate) fn percent(hits: u64, misses: u64) -> String {
    match hits + misses {
        0 => "–".to_owned(),
        all => format!("{:.0} %", 100.0 * hits as f64 / all as f64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_rounded_to_what_people_read() {
        let durations = [5.9, 65.0, 3600.0 * 3.2, 86_400.0 * 2.5].map(duration);
        assert_eq!(durations, ["5s", "1m 5s", "3h 12m", "2d 12h"]);
        assert_eq!(
            [12.4, 1300.0, 2_050_000.0].map(micros),
            ["12 µs", "1.3 ms", "2.05 s"]
        );
        assert_eq!([percent(0, 0), percent(3, 1)], ["–", "75 %"]);
    }
}
