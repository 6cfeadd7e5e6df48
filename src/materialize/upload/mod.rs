//! Writing a view into an object store: its files become objects below a prefix, sent straight from
//! the view.
//!
//! An object is there whole or not at all, but a prefix cannot be replaced at once. So config.json and
//! the index, without which no loader takes a directory, are deleted first and written last.

mod parts;
mod room;
mod sender;
mod state;
mod target;

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::catalog::CONFIG_FILE;
use crate::error::setting::OVERWRITE;
use crate::error::{Code, Error, Hint, Result};
use crate::jobs::Progress;
use crate::manifest::{self, MANIFEST_FILE, Sha256Sum};
use crate::materialize::directory;
use crate::materialize::new_file::NewFile;
use crate::materialize::options::{Options, Share, Summary};
use crate::materialize::partial::parts_of;
use crate::materialize::parts::{Seen, deal};
use crate::materialize::request::Request;
use crate::materialize::space::Outlook;
use crate::recipe::Plan;
use crate::source::remote::Network;

use sender::{Sender, Sent};
use state::{Record, State};
use target::Target;

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
    let begun = begin(&target, plan, &files, options, progress)?;
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
            let bytes: u64 = shards.iter().map(|file| file.len()).sum();
            summary.files += shards.len();
            summary.bytes += bytes;
            summary.kept += shards.len();
            summary.kept_bytes += bytes;
            for shard in shards {
                let record = run.state.record(&shard.name).expect("it was checked");
                run.kept.insert(shard.name.clone(), record.clone());
            }
        }
    }
    run.complete(&others)?;
    Ok(summary)
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

/// A file of the view, with the name that it has below the prefix.
#[derive(Debug)]
struct StoreFile<'a> {
    file: NewFile<'a>,
    name: String,
}

impl StoreFile<'_> {
    fn len(&self) -> u64 {
        self.file.content.len()
    }

    /// Whether it is recorded when it is complete: the next run does not send it again.
    fn is_recorded(&self) -> bool {
        self.file.is_shard() || self.len() > parts::MIN_PART
    }
}

/// All files of the view.
///
/// # Errors
/// If one has a name that no object can have.
fn files(plan: &Plan) -> Result<Vec<StoreFile<'_>>> {
    let files = NewFile::all(plan).into_iter().map(|file| {
        let Some(name) = file.path.to_str().map(str::to_owned) else {
            let problem = "names of objects are UTF-8, and this is not";
            return Err(Error::of_file(Code::BadDestination, &file.path, problem));
        };
        Ok(StoreFile { file, name })
    });
    files.collect()
}

/// Those of `files` that a run with this share sends.
fn own_files<'a, 'b>(
    files: &'a [StoreFile<'b>],
    plan: &Plan,
    share: Share,
) -> Vec<&'a StoreFile<'b>> {
    let own = directory::files(plan, share);
    let own: std::collections::HashSet<_> = own.iter().map(|file| file.entry).collect();
    let is_own = |file: &&StoreFile| own.contains(&file.file.entry);
    files.iter().filter(is_own).collect()
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

/// A run that has begun.
struct Run<'a> {
    target: &'a Target,
    options: &'a Options,
    sender: Sender<'a>,
    state: State,
    /// What earlier runs, and other parts, have sent.
    kept: BTreeMap<String, Record>,
    /// What this one has.
    sent: BTreeMap<String, Sent>,
}

impl Run<'_> {
    /// Sends those of `files` that are not there.
    fn send(&mut self, files: &[&StoreFile]) -> Result<()> {
        let missing = files
            .iter()
            .filter(|file| !self.kept.contains_key(&file.name));
        let missing: Vec<&StoreFile> = missing.copied().collect();
        let sent = self.sender.send(&missing, &self.state)?;
        self.sent.extend(sent);
        Ok(())
    }

    fn summary(&self, files: &[&StoreFile]) -> Summary {
        let kept = files
            .iter()
            .filter(|file| self.kept.contains_key(&file.name));
        let (kept, kept_bytes) = kept.fold((0, 0), |(count, bytes), file| {
            (count + 1, bytes + file.len())
        });
        Summary {
            files: files.len(),
            bytes: files.iter().map(|file| file.len()).sum(),
            kept,
            kept_bytes,
            ..Summary::default()
        }
    }

    /// Sends `others`, which are no shards: those first that no loader goes by. Then all is complete.
    fn complete(&mut self, others: &[&StoreFile]) -> Result<()> {
        self.check_sent()?;
        let (last, first): (Vec<&StoreFile>, Vec<&StoreFile>) = others
            .iter()
            .copied()
            .partition(|file| state::is_key(&file.name));
        let (config, index): (Vec<&StoreFile>, Vec<&StoreFile>) =
            last.into_iter().partition(|file| file.name == CONFIG_FILE);
        self.send(&first)?;
        self.send(&index)?;
        if self.options.sha256 {
            let sums = self.sums(&config)?;
            let bucket = &self.target.bucket;
            bucket.put(MANIFEST_FILE, manifest::text(&sums).into())?;
        }
        self.send(&config)?;
        self.state.end(&self.target.bucket)
    }

    /// Checks that the store has what was sent.
    fn check_sent(&self) -> Result<()> {
        let bucket = &self.target.bucket;
        let listed = state::listing(bucket)?;
        let kept = self
            .kept
            .values()
            .map(|record| (record.name(), record.bytes(), record.tag()));
        let sent = self.sent.iter();
        let sent = sent.map(|(name, sent)| (name.as_str(), sent.bytes, sent.tag.as_deref()));
        for (name, bytes, tag) in kept.chain(sent) {
            let found = listed.get(name);
            if !found.is_some_and(|found| state::is_same(found, bytes, tag)) {
                let found = match found {
                    Some(found) => format!(
                        "it has {} bytes and the entity tag {}",
                        found.len,
                        found.tag.as_deref().unwrap_or("none")
                    ),
                    None => "it is gone".to_owned(),
                };
                let problem = format!(
                    "{found}, and {bytes} bytes with the entity tag {} were sent: another run writes to this prefix",
                    tag.unwrap_or("none")
                );
                let error = Error::of_file(Code::Locked, bucket.url_of(name), problem);
                return Err(error.with_hint("run the same command again, alone"));
            }
        }
        Ok(())
    }

    /// The checksums of all files, those of `unsent` too.
    fn sums(&self, unsent: &[&StoreFile]) -> Result<BTreeMap<PathBuf, Sha256Sum>> {
        let kept = self
            .kept
            .iter()
            .map(|(name, record)| (name, record.sha256()));
        let sent = self.sent.iter().map(|(name, sent)| (name, sent.sha256));
        let known = kept.chain(sent).map(|(name, sum)| {
            let sum = sum.expect("every file was summed");
            (PathBuf::from(name), sum)
        });
        let mut sums: BTreeMap<PathBuf, Sha256Sum> = known.collect();
        for file in unsent {
            sums.insert(file.file.path.clone(), self.sender.sum(file)?);
        }
        Ok(sums)
    }
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
