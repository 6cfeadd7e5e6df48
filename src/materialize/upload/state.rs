//! What a prefix holds: objects of the view, and below `.ckptfs-partial/` what is needed to resume.
//!
//! | object | what it is |
//! |---|---|
//! | `.ckptfs-partial/request.json` | what is written here; made when the first run begins, deleted last |
//! | `.ckptfs-partial/NAME.json` | the record of the complete object `NAME` |

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::catalog::CONFIG_FILE;
use crate::error::{Code, Error, Result};
use crate::jobs;
use crate::manifest::{MANIFEST_FILE, Sha256Sum, from_hex, to_hex};
use crate::materialize::partial::SUFFIX;
use crate::materialize::request::Request;
use crate::source::remote::{Bucket, Listed, is_same_content};

/// Where the records are.
pub(super) const DIRECTORY: &str = SUFFIX;

/// Requests for records at once.
const AT_ONCE: usize = 32;

/// The name of the object that says what is written.
pub(super) fn request_name() -> String {
    format!("{DIRECTORY}/request.json")
}

fn record_name(name: &str) -> String {
    // Not the name of the request, whatever the file is called.
    format!("{DIRECTORY}/objects/{name}.json")
}

fn is_state(name: &str) -> bool {
    name.strip_prefix(DIRECTORY)
        .is_some_and(|rest| rest.starts_with('/'))
}

/// Whether loaders go by the file called `name`: without it they take no directory.
pub(super) fn is_key(name: &str) -> bool {
    let is_index = name.ends_with(".index.json") && !name.contains('/');
    is_index || matches!(name, CONFIG_FILE | "adapter_config.json" | "params.json")
}

/// An object that this run has completed.
#[derive(Debug, Clone)]
pub(super) struct Sent {
    pub(super) bytes: u64,
    /// Its entity tag.
    pub(super) tag: Option<String>,
    pub(super) sha256: Option<Sha256Sum>,
}

/// An object that is complete, in a form that outlives the process.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Record {
    name: String,
    bytes: u64,
    /// Its entity tag.
    tag: Option<String>,
    /// In hexadecimal.
    sha256: Option<String>,
}

impl Record {
    pub(super) fn new(name: &str, sent: &Sent) -> Self {
        Record {
            name: name.to_owned(),
            bytes: sent.bytes,
            tag: sent.tag.clone(),
            sha256: sent.sha256.map(|sum| to_hex(&sum)),
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    pub(super) fn sha256(&self) -> Option<Sha256Sum> {
        from_hex(self.sha256.as_deref()?.as_bytes())
    }

    /// Puts the record into the store.
    pub(super) fn write(&self, bucket: &Bucket) -> Result<()> {
        let text = serde_json::to_vec(self).expect("it is JSON");
        bucket.put(&record_name(&self.name), text.into()).map(drop)
    }
}

/// Whether `found` has so many bytes and this entity tag.
pub(super) fn is_same(found: &Listed, bytes: u64, tag: Option<&str>) -> bool {
    let same_tag = match (tag, &found.tag) {
        (Some(tag), Some(found)) => is_same_content(tag, found),
        // The store reports none.
        _ => true,
    };
    found.len == bytes && same_tag
}

/// All objects below the prefix, by name.
pub(super) fn listing(bucket: &Bucket) -> Result<BTreeMap<String, Listed>> {
    let listed = bucket.list()?.into_iter();
    Ok(listed.map(|object| (object.name.clone(), object)).collect())
}

/// What a run writes down before all else.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Begun {
    request: Request,
    /// The names of all files of the view. Objects of these names are the run's, or are replaced by it.
    files: BTreeSet<String>,
}

impl Begun {
    /// Whether the run has a file called `name`.
    fn has(&self, name: &str) -> bool {
        name == MANIFEST_FILE || self.files.contains(name)
    }
}

/// What there is below a prefix.
#[derive(Debug)]
pub(super) struct State {
    listed: BTreeMap<String, Listed>,
    begun: Option<Begun>,
    /// By the name of the object.
    records: BTreeMap<String, Record>,
}

impl State {
    /// # Errors
    /// If the prefix cannot be listed or read, or a request in it cannot be understood.
    pub(super) fn load(bucket: &Bucket, jobs: usize) -> Result<Self> {
        let listed = listing(bucket)?;
        let begun = match listed.contains_key(&request_name()) {
            true => bucket.get(&request_name())?,
            false => None,
        };
        let begun = begun.map(|text| {
            serde_json::from_slice(&text).map_err(|e| {
                let problem = format!("this cannot be understood: {e}");
                let shown = bucket.url_of(&request_name());
                let error = Error::of_file(Code::OtherRequest, shown, problem);
                error.with_hint("delete the objects below the prefix to start again")
            })
        });
        let recorded = listed
            .keys()
            .filter(|name| listed.contains_key(&record_name(name)));
        let recorded: Vec<&String> = recorded.collect();
        let records = jobs::map(&recorded, jobs.max(AT_ONCE), |name| {
            let text = bucket.get(&record_name(name))?;
            // One that cannot be read is of no complete object.
            Ok(text.and_then(|text| serde_json::from_slice::<Record>(&text).ok()))
        })?;
        let records = records.into_iter().flatten();
        Ok(State {
            records: records
                .map(|record| (record.name.clone(), record))
                .collect(),
            begun: begun.transpose()?,
            listed,
        })
    }

    pub(super) fn request(&self) -> Option<&Request> {
        self.begun.as_ref().map(|begun| &begun.request)
    }

    /// The names of all objects that the run that began here neither has written nor will write.
    pub(super) fn others(&self) -> impl Iterator<Item = &str> {
        let names = self.listed.keys().map(String::as_str);
        names.filter(|name| !is_state(name) && !self.is_of_run(name))
    }

    fn is_of_run(&self, name: &str) -> bool {
        self.begun.as_ref().is_some_and(|begun| begun.has(name))
    }

    /// Whether there is an object called `name`.
    pub(super) fn has(&self, name: &str) -> bool {
        self.listed.contains_key(name)
    }

    /// Whether there is an object called `name` of so many bytes.
    pub(super) fn has_length(&self, name: &str, bytes: u64) -> bool {
        let found = self.listed.get(name);
        found.is_some_and(|found| found.len == bytes)
    }

    pub(super) fn record(&self, name: &str) -> Option<&Record> {
        self.records.get(name)
    }

    /// The record of the object `name` of so many bytes, if it is the one that was recorded.
    pub(super) fn complete(&self, name: &str, bytes: u64) -> Option<&Record> {
        let record = self
            .records
            .get(name)
            .filter(|record| record.bytes == bytes)?;
        let found = self.listed.get(name)?;
        is_same(found, bytes, record.tag()).then_some(record)
    }

    /// Writes down that the prefix is of `request`, whose view has these `files`; returns whether nobody
    /// did before.
    pub(super) fn begin(
        &mut self,
        bucket: &Bucket,
        request: &Request,
        files: BTreeSet<String>,
    ) -> Result<bool> {
        let begun = Begun {
            request: request.clone(),
            files,
        };
        let text = serde_json::to_vec_pretty(&begun).expect("it is JSON");
        let is_new = bucket.create(&request_name(), text.into())?;
        if is_new {
            self.begun = Some(begun);
        }
        Ok(is_new)
    }

    /// Deletes what loaders go by, so that none takes what is being written.
    pub(super) fn conceal(&mut self, bucket: &Bucket) -> Result<()> {
        self.delete(bucket, |name| !is_state(name) && is_key(name))
    }

    /// Deletes the [others](Self::others).
    pub(super) fn delete_others(&mut self, bucket: &Bucket) -> Result<()> {
        let others: BTreeSet<String> = self.others().map(str::to_owned).collect();
        self.delete(bucket, |name| others.contains(name))
    }

    pub(super) fn delete_records(&mut self, bucket: &Bucket) -> Result<()> {
        self.records.clear();
        self.delete(bucket, |name| is_state(name) && name != request_name())
    }

    /// Deletes what the run that began here has sent, and then that it began.
    pub(super) fn clear(&mut self, bucket: &Bucket) -> Result<()> {
        self.conceal(bucket)?;
        let begun = self.begun.take();
        let is_of_run = |name: &str| begun.as_ref().is_some_and(|begun| begun.has(name));
        self.delete(bucket, is_of_run)?;
        self.end(bucket)
    }

    /// Deletes what resuming needs: all is complete.
    pub(super) fn end(&mut self, bucket: &Bucket) -> Result<()> {
        // Records of this run are not listed yet.
        self.listed = listing(bucket)?;
        self.delete_records(bucket)?;
        self.delete(bucket, |name| name == request_name())
    }

    fn delete(&mut self, bucket: &Bucket, unwanted: impl Fn(&str) -> bool) -> Result<()> {
        let names = self.listed.keys().filter(|name| unwanted(name));
        let names: Vec<String> = names.cloned().collect();
        for name in &names {
            self.listed.remove(name);
        }
        if names.is_empty() {
            return Ok(());
        }
        bucket.delete(names)
    }
}
