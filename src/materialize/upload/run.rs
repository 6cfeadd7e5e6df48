//! What a run sends, in which order, and how it ends.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::catalog::CONFIG_FILE;
use crate::error::{Code, Error, Result};
use crate::manifest::{self, MANIFEST_FILE, Sha256Sum};
use crate::materialize::options::{Options, Summary};
use crate::materialize::upload::sender::Sender;
use crate::materialize::upload::state::{self, Record, Sent, State};
use crate::materialize::upload::store_file::StoreFile;
use crate::materialize::upload::target::Target;

/// A run that has begun.
pub(super) struct Run<'a> {
    pub(super) target: &'a Target,
    pub(super) options: &'a Options,
    pub(super) sender: Sender<'a>,
    pub(super) state: State,
    /// What earlier runs, and other parts, have sent.
    pub(super) kept: BTreeMap<String, Record>,
    /// What this one has.
    pub(super) sent: BTreeMap<String, Sent>,
}

impl Run<'_> {
    /// Sends those of `files` that are not there.
    pub(super) fn send(&mut self, files: &[&StoreFile]) -> Result<()> {
        let missing = files
            .iter()
            .filter(|file| !self.kept.contains_key(&file.name));
        let missing: Vec<&StoreFile> = missing.copied().collect();
        let sent = self.sender.send(&missing, &self.state)?;
        self.sent.extend(sent);
        Ok(())
    }

    pub(super) fn summary(&self, files: &[&StoreFile]) -> Summary {
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
    pub(super) fn complete(&mut self, others: &[&StoreFile]) -> Result<()> {
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
