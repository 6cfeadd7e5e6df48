//! Writing a view into an object store: its files become objects below a prefix, sent straight from
//! the view.
//!
//! An object is there whole or not at all, but a prefix cannot be replaced at once. So config.json and
//! the index, without which no loader takes a directory, are deleted first and written last.

mod parts;
mod room;
mod run;
mod sender;
mod state;
mod store_file;
mod target;

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::catalog::CONFIG_FILE;
use crate::error::setting::OVERWRITE;
use crate::error::{Code, Error, Hint, Result};
use crate::jobs::Progress;
use crate::manifest::MANIFEST_FILE;
use crate::materialize::options::{Options, Share, Summary};
use crate::materialize::partial::parts_of;
use crate::materialize::parts::{Seen, deal};
use crate::materialize::request::Request;
use crate::materialize::space::Outlook;
use crate::materialize::upload::run::Run;
use crate::materialize::upload::sender::Sender;
use crate::materialize::upload::state::{Record, State};
use crate::materialize::upload::store_file::{StoreFile, files, own_files};
use crate::materialize::upload::target::Target;
use crate::recipe::Plan;
use crate::source::remote::Network;

/// Writes the view of `plan` below `url`.
pub(super) fn upload(
    plan: &Plan,
    inputs: &[PathBuf],
    url: &str,
    options: &Options,
    progress: &dyn Progress,
) -> Result<Summary> {
    let target = Target::resolve(url, plan, inputs, options)?;
    let files = files(plan)?;
    let own = own_files(&files, plan, options.share);
    let mut begun = begin(&target, plan, &files, options, progress)?;
    if is_complete(&begun.state, &files, options) {
        if !matches!(options.share, Share::Part(_)) {
            begun.state.end(&target.bucket)?;
        }
        return Ok(all_kept(&own, &files, options.share));
    }
    let mut run = Run {
        target: &target,
        options,
        sender: Sender::new(plan, &target.bucket, options, progress)?,
        kept: kept(&begun.state, &own, options),
        state: begun.state,
        sent: BTreeMap::new(),
    };
    let total = own.iter().map(|file| file.len()).sum();
    progress.start(total);
    for file in own.iter().filter(|file| run.kept.contains_key(&file.name)) {
        progress.skip(file.len());
    }
    if own.iter().any(|file| !run.kept.contains_key(&file.name)) {
        run.state.conceal(&target.bucket)?;
    }
    let (shards, others): (Vec<&StoreFile>, Vec<&StoreFile>) =
        own.iter().copied().partition(|file| file.file.is_shard());
    run.send(&shards)?;
    let mut summary = run.summary(&own);
    match options.share {
        Share::Part(_) => return Ok(summary),
        Share::Whole => {}
        Share::Finish => {
            let parts = begun.parts.expect("parts are finished");
            let shards: Vec<&StoreFile> = files.iter().filter(|f| f.file.is_shard()).collect();
            check_parts(&target, &run.state, parts, &shards, options)?;
            add_kept(&mut summary, &shards);
            for shard in shards {
                let record = run.state.record(&shard.name).expect("it was checked");
                run.kept.insert(shard.name.clone(), record.clone());
            }
        }
    }
    run.complete(&others)?;
    Ok(summary)
}

/// Whether an earlier run was stopped when all was complete: config.json, which is sent last, is there.
fn is_complete(state: &State, files: &[StoreFile], options: &Options) -> bool {
    let is_listed = |file: &StoreFile| state.has_length(&file.name, file.len());
    state.has(CONFIG_FILE)
        && files.iter().any(|file| file.name == CONFIG_FILE)
        && files.iter().all(is_listed)
        && (!options.sha256 || state.has(MANIFEST_FILE))
}

/// The summary of a run with this share that finds all of `files` complete; `own` are its own.
fn all_kept(own: &[&StoreFile], files: &[StoreFile], share: Share) -> Summary {
    let mut summary = Summary::default();
    add_kept(&mut summary, own);
    if share == Share::Finish {
        let shards = files.iter().filter(|file| file.file.is_shard());
        add_kept(&mut summary, &shards.collect::<Vec<_>>());
    }
    summary
}

fn add_kept(summary: &mut Summary, files: &[&StoreFile]) {
    let bytes: u64 = files.iter().map(|file| file.len()).sum();
    summary.files += files.len();
    summary.bytes += bytes;
    summary.kept += files.len();
    summary.kept_bytes += bytes;
}

/// What [`upload`] would do.
pub(super) fn outlook(
    plan: &Plan,
    inputs: &[PathBuf],
    url: &str,
    options: &Options,
) -> Result<Outlook> {
    let target = Target::resolve(url, plan, inputs, options)?;
    let files = files(plan)?;
    let own = own_files(&files, plan, options.share);
    let state = State::load(&target.bucket, options.jobs)?;
    let parts = parts(&target, &state, options.share)?;
    let request = Request::new(plan, false, parts);
    let is_ours = state
        .request()
        .is_some_and(|found| request.difference(found).is_none());
    check_replaceable(&target, &state, options)?;
    let kept = match is_ours {
        true => kept(&state, &own, options),
        false => BTreeMap::new(),
    };
    let bytes: u64 = own.iter().map(|file| file.len()).sum();
    let kept_bytes = kept.values().map(Record::bytes).sum();
    Ok(Outlook {
        files: own.len(),
        bytes,
        kept: kept.len(),
        kept_bytes,
        written_bytes: bytes - kept_bytes,
        in_store: true,
        ..Outlook::default()
    })
}

/// What a run on `url` has left, if it has: the URL of its records.
pub(super) fn left_by_earlier_run(url: &str) -> Option<PathBuf> {
    let bucket = Network::shared().ok()?.bucket(url).ok()?;
    let left = bucket.has(&state::request_name());
    left.then(|| bucket.url_of(state::DIRECTORY).into())
}

/// What a run begins with.
struct Begun {
    state: State,
    parts: Option<usize>,
}

/// How many parts the view is written in.
fn parts(target: &Target, state: &State, share: Share) -> Result<Option<usize>> {
    Ok(match share {
        Share::Whole => None,
        Share::Part(part) => Some(part.count()),
        Share::Finish => {
            let shown = target.bucket.url_of(state::DIRECTORY);
            Some(parts_of(state.request(), shown.as_ref())?)
        }
    })
}

/// Has the prefix be of this view.
fn begin(
    target: &Target,
    plan: &Plan,
    files: &[StoreFile],
    options: &Options,
    progress: &dyn Progress,
) -> Result<Begun> {
    let bucket = &target.bucket;
    let is_part = matches!(options.share, Share::Part(_));
    loop {
        let mut state = State::load(bucket, options.jobs)?;
        let parts = parts(target, &state, options.share)?;
        let request = Request::new(plan, false, parts);
        let difference = state.request().map(|found| request.difference(found));
        check_replaceable(target, &state, options)?;
        match difference {
            Some(None) => {
                if !is_part {
                    state.delete_others(bucket)?;
                }
                return Ok(Begun { state, parts });
            }
            Some(Some(difference)) => {
                let begun_in_parts = state.request().is_some_and(|found| found.parts.is_some());
                if begun_in_parts || options.share != Share::Whole || !options.start_again {
                    let problem =
                        format!("what is written here is not what was asked for: {difference}");
                    let shown = bucket.url_of(state::DIRECTORY);
                    let error = Error::of_file(Code::OtherRequest, shown, problem);
                    return Err(error.with_hint(
                        "ask for the same, or delete the objects below the prefix to start again",
                    ));
                }
                progress.note(&format!(
                    "{}: an earlier run stopped here, but {difference}; starting again",
                    bucket.url()
                ));
                state.clear(bucket)?;
            }
            None => {
                // Other parts may have begun: what they have sent stays.
                state.conceal(bucket)?;
                if !is_part {
                    state.delete_others(bucket)?;
                    state.delete_records(bucket)?;
                }
                // Another part may be faster; then the request is what it has made.
                let names = files.iter().map(|file| file.name.clone()).collect();
                if state.begin(bucket, &request, names)? {
                    return Ok(Begun { state, parts });
                }
            }
        }
    }
}

/// # Errors
/// If there is something that is not to be overwritten.
fn check_replaceable(target: &Target, state: &State, options: &Options) -> Result<()> {
    match state.others().next() {
        Some(name) if !options.overwrite => {
            let problem = format!("there are objects below this prefix, such as {name}");
            let error = Error::of_file(Code::NotEmpty, target.bucket.url(), problem);
            let overwrite = Hint::give(OVERWRITE).to("replace them");
            Err(error.with_hint(Hint::text("choose another prefix").or(overwrite)))
        }
        _ => Ok(()),
    }
}

/// The records of those of `files` that need not be sent again.
fn kept(state: &State, files: &[&StoreFile], options: &Options) -> BTreeMap<String, Record> {
    let records = files.iter().filter_map(|file| {
        let record = state.complete(&file.name, file.len())?;
        let is_enough = !options.sha256 || record.sha256().is_some();
        is_enough.then(|| (file.name.clone(), record.clone()))
    });
    records.collect()
}

/// # Errors
/// If a part is not complete; all such parts are named.
fn check_parts(
    target: &Target,
    state: &State,
    parts: usize,
    shards: &[&StoreFile],
    options: &Options,
) -> Result<()> {
    let mut seen = Seen::new(parts);
    let lengths: Vec<u64> = shards.iter().map(|shard| shard.len()).collect();
    for (shard, part) in shards.iter().zip(deal(&lengths, parts)) {
        let record = state.complete(&shard.name, shard.len());
        seen.add(part, record.map(|record| record.sha256().is_some()));
    }
    let shown = target.bucket.url_of(state::DIRECTORY);
    let again = "run them again, which sends their shards again";
    seen.check(shown.as_ref(), options.sha256, again, |_| true)
}
