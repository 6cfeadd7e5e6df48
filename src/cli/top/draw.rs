//! The screen of `ckptfs top`: a function of what is known.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{LineGauge, Paragraph, Row, Table};

use crate::cli::status::{bytes, duration, micros, percent, persist, prefetch};
use crate::cli::top::model::{Figures, FileFigures, Model};

const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);
const ALARM: Style = Style::new().fg(Color::Red).add_modifier(Modifier::BOLD);

/// Draws all of the screen.
pub(super) fn draw(frame: &mut Frame, model: &Model) {
    let figures = model.figures();
    let jobs = figures.as_ref().map_or(0, |all| {
        u16::from(all.now.persist.is_some()) + u16::from(all.now.prefetch.is_some())
    });
    let [head, kinds, cache, _, files, foot] = Layout::vertical([
        Constraint::Length(3),
        Constraint::Length(5 + jobs),
        Constraint::Length(3),
        Constraint::Length(1),
        Constraint::Min(0),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    draw_head(frame, head, model, figures.as_ref());
    if let Some(figures) = &figures {
        draw_kinds(frame, kinds, figures);
        draw_cache(frame, cache, figures);
        draw_files(frame, files, &figures.files);
    }
    let keys = format!("q quit   s sort (now by {})", model.order.name());
    frame.render_widget(Paragraph::new(keys), foot);
}

fn draw_head(frame: &mut Frame, area: Rect, model: &Model, figures: Option<&Figures>) {
    let mut first = vec![Span::styled(model.mountpoint.clone(), BOLD)];
    let mut view = String::new();
    if let Some(Figures { now, .. }) = figures {
        first.push(Span::raw(format!(
            "   process {}, for {}   {} reads, ",
            now.pid,
            duration(now.uptime_seconds),
            now.requests.reads
        )));
        let errors = now.requests.errors;
        let style = if errors > 0 { ALARM } else { Style::new() };
        first.push(Span::styled(format!("{errors} errors"), style));
        view.clone_from(&now.view.request);
    }
    let last = match (&model.problem, figures) {
        (Some(problem), _) => Line::styled(problem.clone(), ALARM),
        (None, None) => Line::raw("waiting for the first answer"),
        (None, Some(_)) => Line::raw(""),
    };
    let lines = vec![Line::from(first), Line::raw(view), last];
    frame.render_widget(Paragraph::new(lines), area);
}

fn draw_kinds(frame: &mut Frame, area: Rect, figures: &Figures) {
    let (now, rates) = (figures.now, &figures.rates);
    let row = |kind: &str, rate: u64, total: u64, more: String| {
        Row::new([
            kind.to_owned(),
            format!("{}/s", bytes(rate)),
            bytes(total),
            more,
        ])
    };
    let served = &now.served;
    let passthrough = &now.passthrough;
    let mut rows = vec![
        row(
            "computed",
            rates.computed_bytes,
            served.computed_bytes,
            format!("{:.0} tiles/s", figures.tiles_per_second),
        ),
        row(
            "spliced",
            rates.spliced_bytes,
            served.spliced_bytes,
            format!("{:.0} reads/s", figures.reads_per_second),
        ),
        row("made", rates.made_bytes, served.made_bytes, String::new()),
        Row::new([
            "passthrough".to_owned(),
            "unknown".to_owned(),
            "unknown".to_owned(),
            format!(
                "{} openings of {} in files, {} open now",
                passthrough.openings,
                bytes(passthrough.openings_file_bytes),
                passthrough.open_handles
            ),
        ]),
    ];
    if let Some(job) = &now.persist {
        rows.push(row(
            "persisted",
            rates.persisted_bytes,
            served.persisted_bytes,
            persist(job),
        ));
    }
    if let Some(stats) = &now.prefetch {
        let done = bytes(stats.bytes_done);
        let cells = [
            "prefetched".to_owned(),
            String::new(),
            done,
            prefetch(stats),
        ];
        rows.push(Row::new(cells));
    }
    let widths = [
        Constraint::Length(12),
        Constraint::Length(14),
        Constraint::Length(12),
        Constraint::Min(0),
    ];
    let header = Row::new(["", "rate", "total", ""]).style(BOLD);
    frame.render_widget(Table::new(rows, widths).header(header), area);
}

fn draw_cache(frame: &mut Frame, area: Rect, figures: &Figures) {
    let [gauge, hits, tiles] = Layout::vertical([Constraint::Length(1); 3]).areas(area);
    let cache = &figures.now.cache;
    let label = format!(
        "cache {} of {} ",
        bytes(cache.bytes),
        bytes(cache.capacity_bytes)
    );
    let ratio = cache.bytes as f64 / cache.capacity_bytes.max(1) as f64;
    let filled = LineGauge::default().ratio(ratio.clamp(0.0, 1.0));
    let filled = filled.filled_symbol("█").unfilled_symbol("░");
    frame.render_widget(filled.label(label), gauge);
    let (new_hits, new_misses) = figures.hits_and_misses.unwrap_or_default();
    let found = format!(
        "tiles found there: {} now, {} in all",
        percent(new_hits, new_misses),
        percent(cache.hits, cache.misses)
    );
    frame.render_widget(Paragraph::new(found), hits);
    let latency = &figures.now.tiles.latency;
    let now = figures.p50_and_p99_us.map_or("–".to_owned(), |(p50, p99)| {
        format!("{} / {}", micros(p50), micros(p99))
    });
    let text = format!(
        "tile latency, half / 99 % within: {now} now, {} / {} in all",
        micros(latency.p50_us),
        micros(latency.p99_us)
    );
    frame.render_widget(Paragraph::new(text), tiles);
}

fn draw_files(frame: &mut Frame, area: Rect, files: &[FileFigures]) {
    let rows = files.iter().map(|FileFigures { file, rate }| {
        let opened = match file.passthrough_openings {
            0 => String::new(),
            count => format!("{count} times"),
        };
        Row::new([
            format!("{}/s", bytes(*rate)),
            bytes(file.read_bytes),
            bytes(file.file_bytes),
            opened,
            file.path.clone(),
        ])
    });
    let widths = [
        Constraint::Length(14),
        Constraint::Length(12),
        Constraint::Length(12),
        Constraint::Length(12),
        Constraint::Min(10),
    ];
    let header = Row::new(["rate", "read", "size", "passthrough", "file"]);
    let header = header.style(BOLD);
    frame.render_widget(Table::new(rows, widths).header(header), area);
}
