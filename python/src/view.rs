//! Views.

use std::collections::HashMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use ckptfs::catalog::Tensor;
use ckptfs::error::{Code, Error};
use ckptfs::jobs::Progress;
use ckptfs::json::{self, Details};
use ckptfs::layout::PlannedTensor;
use ckptfs::materialize::{Options, materialize, write_stub};
use ckptfs::quant::SchemeRequest;
use ckptfs::read::{Destination, Reader};
use ckptfs::recipe::{Plan, ViewRequest};
use ckptfs::source::Blob;
use ckptfs::verify::KnownScales;
use ckptfs::view::EntryId;
use ckptfs::{diff as differ, inspect, verify as verifier};
use pyo3::exceptions::{PyKeyError, PyValueError};
use pyo3::prelude::*;

use crate::errors::{argument, exception};
use crate::network;
use crate::request::Arguments;
use crate::work;

/// A planned view, and a reader of it.
#[pyclass(frozen, name = "View", module = "ckptfs._native")]
#[derive(Debug)]
pub(crate) struct NativeView {
    request: ViewRequest,
    plan: Plan,
    reader: Reader,
    /// Shard and position of each tensor.
    tensors: HashMap<Arc<str>, (usize, usize)>,
    files: HashMap<PathBuf, EntryId>,
}

/// Name, dtype, shape and bytes of a tensor.
type TensorRow<'a> = (&'a str, String, &'a [u64], u64);

/// Bytes of computed tiles that are kept for slices and files; whole tensors are not kept.
const CACHE_BYTES: usize = 64 << 20;
/// Work on fewer bytes of this machine ends before anybody could stop it.
const LITTLE: usize = 16 << 20;

/// The memory of Python objects that begins at `address`.
///
/// # Safety
/// It must be writable for `len` bytes, belong to an object that lives until the slice is gone, and
/// nobody else may use it meanwhile.
unsafe fn memory<'a>(address: usize, len: usize) -> &'a mut [u8] {
    if len == 0 {
        return &mut [];
    }
    // SAFETY: the caller says so.
    unsafe { std::slice::from_raw_parts_mut(address as *mut u8, len) }
}

fn jobs(threads: Option<usize>) -> usize {
    threads.unwrap_or_else(|| Options::default().jobs)
}

impl NativeView {
    fn tensor(&self, name: &str) -> PyResult<&PlannedTensor> {
        let (shard, position) = self
            .tensors
            .get(name)
            .ok_or_else(|| PyKeyError::new_err(name.to_owned()))?;
        Ok(&self.plan.shards[*shard].tensors[*position])
    }

    /// Does `work`, which is on `bytes` bytes.
    fn little_or_long<T: Send>(
        &self,
        py: Python<'_>,
        bytes: usize,
        work: impl FnOnce(&dyn Progress) -> ckptfs::Result<T> + Send,
    ) -> PyResult<T> {
        if bytes < LITTLE && !self.reader.reads_remote() {
            py.detach(|| work(&())).map_err(|error| exception(&error))
        } else {
            work::run(py, None, work)
        }
    }
}

#[pymethods]
impl NativeView {
    #[new]
    fn new(py: Python<'_>, arguments: Arguments) -> PyResult<Self> {
        network::prepare();
        let wanted = arguments.wanted()?;
        let planned = work::run(py, None, |_| {
            let request = wanted.request()?;
            let plan = request.plan()?;
            Ok((request, plan))
        });
        let (request, plan) = planned?;
        let mut tensors = HashMap::new();
        for (i, shard) in plan.shards.iter().enumerate() {
            let names = shard.tensors.iter().map(|tensor| &tensor.name);
            tensors.extend(names.enumerate().map(|(k, name)| (name.clone(), (i, k))));
        }
        let files = plan.view.files();
        Ok(NativeView {
            files: files.map(|(id, path, _)| (path, id)).collect(),
            reader: Reader::new(plan.view.clone(), CACHE_BYTES),
            request,
            plan,
            tensors,
        })
    }

    /// The plan as JSON.
    fn plan(&self, py: Python<'_>, provenance: bool) -> String {
        py.detach(|| {
            let details = Details {
                directories: self.request.directories(),
                provenance,
                spelling: argument,
                ..Details::default()
            };
            json::plan(&self.plan, &details)
        })
    }

    /// The recipe of the view.
    fn recipe(&self) -> PyResult<String> {
        self.request.to_recipe().map_err(|error| exception(&error))
    }

    /// Writes all files but the weights to a directory, with the recipe.
    fn write_stub(&self, directory: PathBuf) -> PyResult<()> {
        let written = write_stub(&self.request, &self.plan, &directory);
        written.map_err(|error| exception(&error))
    }

    /// Paths and lengths of all files.
    fn files(&self) -> Vec<(PathBuf, u64)> {
        let files = self.plan.view.files();
        files
            .map(|(_, path, content)| (path, content.len()))
            .collect()
    }

    /// The names of the shards, in order.
    fn shards(&self) -> Vec<&str> {
        self.plan.shards.iter().map(|shard| &*shard.name).collect()
    }

    /// The tensors of a shard, in the order of their bytes.
    fn tensors(&self, shard: &str) -> PyResult<Vec<TensorRow<'_>>> {
        let mut shards = self.plan.shards.iter();
        let found = shards.find(|other| other.name == shard);
        let found = found.ok_or_else(|| PyKeyError::new_err(shard.to_owned()))?;
        let rows = found.tensors.iter();
        let rows = rows.map(|t| (&*t.name, t.dtype.to_string(), &*t.shape, t.len));
        Ok(rows.collect())
    }

    /// Fills memory with the bytes of a file from `offset`; returns how many there were.
    fn read(
        &self,
        py: Python<'_>,
        path: PathBuf,
        offset: u64,
        address: usize,
        len: usize,
    ) -> PyResult<usize> {
        let id = *self.files.get(&path).ok_or_else(|| {
            let problem = "the view has no such file";
            exception(&Error::of_file(Code::NotFound, &path, problem))
        })?;
        // SAFETY: the package calls this with a buffer that it holds.
        let buffer = unsafe { memory(address, len) };
        self.little_or_long(py, len, |_| self.reader.read_at(id, offset, buffer))
    }

    /// Fills memory with whole tensors: name, address and length of each.
    fn fill(
        &self,
        py: Python<'_>,
        wanted: Vec<(String, usize, usize)>,
        threads: Option<usize>,
    ) -> PyResult<()> {
        let tensors = wanted
            .iter()
            .map(|(name, ..)| Ok(self.tensor(name)?.tensor()));
        let tensors: Vec<Tensor> = tensors.collect::<PyResult<_>>()?;
        let mut destinations = Vec::with_capacity(wanted.len());
        let mut bytes = 0;
        for (tensor, (name, address, len)) in tensors.iter().zip(wanted) {
            if tensor.len() != len as u64 {
                let problem = format!("{len} bytes of memory for {}", tensor.len());
                return Err(exception(
                    &Error::new(Code::Internal, problem).about_tensor(name),
                ));
            }
            bytes += len;
            destinations.push(Destination {
                tensor,
                // SAFETY: the package calls this with tensors that it has just made and holds.
                bytes: unsafe { memory(address, len) },
            });
        }
        let fill =
            |progress: &dyn Progress| self.reader.fill(destinations, jobs(threads), progress);
        self.little_or_long(py, bytes, fill)
    }

    /// Fills memory with the elements of a tensor in `ranges`.
    fn fill_slice(
        &self,
        py: Python<'_>,
        name: &str,
        ranges: Vec<(u64, u64)>,
        address: usize,
        len: usize,
        threads: Option<usize>,
    ) -> PyResult<()> {
        let tensor = self.tensor(name)?.tensor();
        let ranges: Vec<Range<u64>> = ranges.into_iter().map(|(from, to)| from..to).collect();
        // SAFETY: as for `fill`.
        let bytes = unsafe { memory(address, len) };
        let fill = |progress: &dyn Progress| {
            self.reader
                .fill_slice(&tensor, &ranges, bytes, jobs(threads), progress)
        };
        self.little_or_long(py, len, fill)
    }

    /// The local file that holds a tensor in one piece, and where, if one does; it is still what was
    /// planned.
    fn stored(&self, name: &str) -> PyResult<Option<(PathBuf, u64)>> {
        let tensor = self.tensor(name)?;
        let Some((blob, offset)) = tensor.extents.as_stored() else {
            return Ok(None);
        };
        let Some(file) = blob.as_local() else {
            return Ok(None);
        };
        file.check()
            .and_then(|()| file.check_path())
            .map_err(|error| exception(&error))?;
        Ok(Some((file.path().to_owned(), offset)))
    }

    /// Writes the view to a directory; returns files, bytes, and files and bytes that were linked and
    /// were complete already.
    #[pyo3(signature = (out, *, overwrite, hardlink, weights_only, sha256, check_space, threads, progress))]
    #[allow(clippy::too_many_arguments, reason = "they are arguments of Python")]
    fn materialize(
        &self,
        py: Python<'_>,
        out: PathBuf,
        overwrite: bool,
        hardlink: bool,
        weights_only: bool,
        sha256: bool,
        check_space: bool,
        threads: Option<usize>,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<[u64; 6]> {
        let options = Options {
            overwrite,
            hardlink,
            weights_only,
            sha256,
            check_space,
            start_again: true,
            jobs: jobs(threads),
            ..Options::default()
        };
        let inputs = self.request.inputs();
        let written = work::run(py, progress.as_ref(), |watched| {
            materialize(&self.plan, &inputs, &out, &options, watched)
        })?;
        Ok([
            written.files as u64,
            written.bytes,
            written.linked as u64,
            written.linked_bytes,
            written.kept as u64,
            written.kept_bytes,
        ])
    }

    /// What of a directory is not as in the view, as JSON.
    fn verify(
        &self,
        py: Python<'_>,
        out: PathBuf,
        threads: Option<usize>,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<String> {
        let report = work::run(py, progress.as_ref(), |watched| {
            verifier::against_view(&self.plan, &out, jobs(threads), watched)
        })?;
        Ok(json::comparison(&report))
    }

    /// Figures of quantization errors, as JSON: of this view, or in each of the schemes `compare`.
    fn inspect(
        &self,
        py: Python<'_>,
        compare: Vec<String>,
        threads: Option<usize>,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<String> {
        let schemes = compare.iter().map(|scheme| scheme.parse());
        let schemes: Vec<SchemeRequest> = schemes
            .collect::<Result<_, _>>()
            .map_err(|problem| PyValueError::new_err(format!("compare: {problem}")))?;
        work::run(py, progress.as_ref(), |watched| {
            if schemes.is_empty() {
                let tensors = inspect::quantized_tensors(&self.plan);
                let inspection = inspect::inspect(&self.reader, &tensors, jobs(threads), watched)?;
                return Ok(json::inspection(&inspection));
            }
            let candidates = inspect::candidates(&self.request, &schemes, CACHE_BYTES)?;
            let compared = inspect::compare(&candidates, jobs(threads), watched)?;
            let names = schemes.iter().map(ToString::to_string);
            Ok(json::schemes(names.zip(&compared)))
        })
    }
}

/// What is different between two views, as JSON.
#[pyfunction]
pub(crate) fn diff(
    py: Python<'_>,
    a: &NativeView,
    b: &NativeView,
    values: bool,
    threads: Option<usize>,
    progress: Option<Py<PyAny>>,
) -> PyResult<String> {
    let diff = work::run(py, progress.as_ref(), |watched| {
        differ::diff([&a.plan, &b.plan], values, jobs(threads), watched)
    })?;
    Ok(json::difference(&diff))
}

/// What is wrong with a directory or mount, as JSON.
#[pyfunction]
pub(crate) fn verify(
    py: Python<'_>,
    directory: PathBuf,
    threads: Option<usize>,
    progress: Option<Py<PyAny>>,
) -> PyResult<String> {
    work::run(py, progress.as_ref(), |watched| {
        let known = ckptfs::fuse::mount_plan(&directory);
        let known = known.map(|plan| KnownScales::of_mount(plan.device, &plan.text));
        let known = known.unwrap_or_default();
        let report = verifier::structure(&directory, &known, jobs(threads), watched)?;
        let summed = verifier::manifest(&directory, jobs(threads), watched)?;
        Ok(json::structure(&report, summed.as_ref(), argument))
    })
}
