//! What the screen shows, without a terminal.

use std::time::Duration;

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use serde_json::json;

use ckptfs::error::Code;
use ckptfs::fuse::Answer;
use ckptfs::stats::Snapshot;

use crate::cli::top::draw::draw;
use crate::cli::top::model::{Model, Order};

const PATIENCE: Duration = Duration::from_secs(3);

/// Figures after `seconds`, of files with a path and how many bytes of it were read.
fn snapshot(seconds: f64, computed: u64, files: &[(&str, u64)]) -> Snapshot {
    let files: Vec<_> = files
        .iter()
        .map(|(path, read)| {
            json!({
                "path": path, "file_bytes": 1 << 30, "read_bytes": read, "reads": 1,
                "passthrough_openings": 0,
            })
        })
        .collect();
    let count = computed >> 20;
    serde_json::from_value(json!({
        "schema": 1, "ckptfs": "0", "pid": 4711, "mountpoint": "/mnt/m",
        "uptime_seconds": seconds,
        "view": {"request": "mount --base A --fp8 /mnt/m", "sources": ["/A"], "files": 3, "bytes": 9},
        "requests": {"reads": count, "opens": 0, "errors": 2, "open_handles": null},
        "served": {"computed_bytes": computed, "spliced_bytes": 0, "made_bytes": 4096},
        "passthrough": {"openings": 7, "openings_file_bytes": 7_u64 << 30, "open_handles": 1},
        "cache": {
            "capacity_bytes": 512_u64 << 20, "bytes": 128 << 20, "kept_bytes": 0, "hits": 3 * count,
            "misses": count,
        },
        "tiles": {"computed": count, "computed_ahead": 0, "latency": {
            "count": count, "mean_us": 1000.0, "p50_us": 1500.0, "p99_us": 2500.0, "max_us": 2500.0,
            "buckets": [{"up_to_us": 1500.0, "count": count}],
        }},
        "facts": {"surveys": 0, "seconds": 0.0},
        "files_used": 2, "files": files,
    }))
    .unwrap()
}

fn model() -> Model {
    Model::new("/mnt/m".to_owned())
}

fn take(model: &mut Model, snapshot: Snapshot) {
    model.take(Some(Answer::Figures(Box::new(snapshot))), PATIENCE);
}

/// The lines of a screen of this size.
fn screen(model: &Model, width: u16, height: u16) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, model)).unwrap();
    let buffer = terminal.backend().buffer();
    let cells = buffer.content().chunks(usize::from(width));
    cells
        .map(|line| line.iter().map(|cell| cell.symbol()).collect())
        .collect()
}

fn assert_shows(model: &Model, parts: &[&str]) {
    let screen = screen(model, 120, 40).join("\n");
    for part in parts {
        assert!(screen.contains(part), "{part:?} in\n{screen}");
    }
}

#[test]
fn rates_are_those_between_the_last_two_snapshots() {
    let mut model = model();
    assert_shows(&model, &["/mnt/m", "waiting for the first answer"]);
    take(&mut model, snapshot(10.0, 100 << 20, &[("a", 100 << 20)]));
    let figures = model.figures().unwrap();
    assert_eq!(
        (figures.rates.computed_bytes, figures.files[0].rate),
        (0, 0)
    );
    take(
        &mut model,
        snapshot(12.0, 140 << 20, &[("b", 10 << 20), ("a", 130 << 20)]),
    );
    let figures = model.figures().unwrap();
    assert_eq!(figures.rates.computed_bytes, 20 << 20);
    assert_eq!(figures.tiles_per_second, 20.0);
    assert_eq!(figures.hits_and_misses, Some((120, 40)));
    let rates: Vec<_> = figures
        .files
        .iter()
        .map(|f| (&*f.file.path, f.rate))
        .collect();
    assert_eq!(rates, [("a", 15 << 20), ("b", 5 << 20)]);
    assert_shows(
        &model,
        &[
            "process 4711",
            "2 errors",
            "mount --base A --fp8 /mnt/m",
            "20.00 MiB/s",
            "140.00 MiB",
            "7 openings of 7.00 GiB in files, 1 open now",
            "cache 128.00 MiB of 512.00 MiB",
            "75 % now, 75 % in all",
            "1.5 ms / 1.5 ms now, 1.5 ms / 2.5 ms in all",
            "sort (now by rate)",
        ],
    );
}

#[test]
fn a_mount_that_was_made_anew_has_no_rates_yet() {
    let mut model = model();
    take(&mut model, snapshot(100.0, 100 << 20, &[("a", 100 << 20)]));
    take(&mut model, snapshot(1.0, 1 << 20, &[("a", 1 << 20)]));
    let figures = model.figures().unwrap();
    assert_eq!(
        (figures.rates.computed_bytes, figures.reads_per_second),
        (0, 0.0)
    );
}

#[test]
fn files_are_sorted_as_asked_for() {
    let mut model = model();
    take(
        &mut model,
        snapshot(1.0, 0, &[("b", 50), ("a", 90), ("c", 0)]),
    );
    take(
        &mut model,
        snapshot(2.0, 0, &[("b", 70), ("a", 90), ("c", 30)]),
    );
    let mut found = Vec::new();
    for _ in 0..4 {
        let figures = model.figures().unwrap();
        let paths: String = figures.files.iter().map(|f| &*f.file.path).collect();
        found.push((model.order, paths));
        model.order = model.order.next();
    }
    let expected = [
        (Order::Rate, "cba"),
        (Order::Bytes, "abc"),
        (Order::Path, "abc"),
        (Order::Rate, "cba"),
    ];
    assert_eq!(
        found,
        expected.map(|(order, paths)| (order, paths.to_owned()))
    );
}

#[test]
fn what_is_wrong_is_shown_beside_the_last_figures() {
    let mut model = model();
    take(&mut model, snapshot(1.0, 100 << 20, &[]));
    for (answer, text) in [
        (Some(Answer::Dead), "ckptfs unmount /mnt/m"),
        (
            Some(Answer::Unreadable {
                code: Code::NoFigures,
                why: "why it is so".into(),
            }),
            "why it is so",
        ),
        (None, "has not answered for 3 s"),
    ] {
        model.take(answer, PATIENCE);
        assert_shows(&model, &[text, "100.00 MiB"]);
    }
    take(&mut model, snapshot(2.0, 100 << 20, &[]));
    assert!(!screen(&model, 120, 40).join("").contains("answered"));
}

#[test]
fn every_size_of_a_terminal_can_be_drawn_on() {
    let mut model = model();
    let many: Vec<String> = (0..100).map(|i| format!("a very long name/{i}")).collect();
    let many: Vec<(&str, u64)> = many.iter().map(|path| (path.as_str(), 7)).collect();
    take(&mut model, snapshot(1.0, 0, &many));
    for (width, height) in [(1, 1), (10, 3), (80, 24), (300, 100), (40, 200)] {
        let lines = screen(&model, width, height);
        assert_eq!(lines.len(), usize::from(height));
    }
    assert!(screen(&model, 80, 24)[23].starts_with("q quit"));
}
