//! What a view in GGUF is made of, and whether this machine can hold it.

use std::thread;
use std::time::Duration;

use indicatif::{BinaryBytes, HumanDuration};

use ckptfs::error::{Code, Warning};
use ckptfs::ops::GgufReport;
use ckptfs::recipe::Plan;
use ckptfs::text::counted;

/// The types of the tensors, and how many bits a weight takes; nothing for a view in safetensors.
pub(super) fn line(plan: &Plan) -> String {
    let Some(report) = plan.report.reports::<GgufReport>().next() else {
        return String::new();
    };
    let (mut weights, mut bytes) = (0, 0);
    let mut kinds: Vec<_> = report.types.iter().collect();
    kinds.sort_by_key(|(_, (_, _, bytes))| std::cmp::Reverse(*bytes));
    let kinds = kinds
        .into_iter()
        .map(|(name, (count, of_kind, bytes_of_kind))| {
            weights += of_kind;
            bytes += bytes_of_kind;
            format!("{count} {name} ({})", BinaryBytes(*bytes_of_kind))
        });
    let kinds: Vec<String> = kinds.collect();
    let bits = bytes as f64 * 8.0 / (weights as f64).max(1.0);
    let imatrix = report.imatrix.map(|(matrices, used)| {
        format!(" (weights of columns for {used} of {matrices} matrices of the importance matrix)")
    });
    format!(
        "gguf   {}, {bits:.2} bits per weight: {}{}\n",
        report.architecture,
        kinds.join(", "),
        imatrix.unwrap_or_default()
    )
}

/// The time that computing all tensors takes, on all processors, as this machine encodes just now.
pub(crate) fn first_load(plan: &Plan) -> Option<Duration> {
    let report = plan.report.reports::<GgufReport>().next()?;
    Some(report.encoding_time() / processors())
}

fn processors() -> u32 {
    thread::available_parallelism().map_or(1, |count| count.get() as u32)
}

/// How long a reader of all of a view in GGUF waits for what is computed.
pub(super) fn first_load_line(first_load: Duration) -> String {
    let time = match first_load {
        short if short < Duration::from_secs(1) => "less than a second".to_owned(),
        long => format!("about {}", HumanDuration(long)),
    };
    let processors = counted(processors() as usize, "processor");
    format!("load   {time} to compute all of it at its first read, on {processors}\n")
}

/// Warns of a view in GGUF that does not fit in memory: llama.cpp maps it and goes through all of it for
/// each token, so that what the page cache cannot hold would be computed again each time.
pub(super) fn too_large(plan: &Plan) -> Option<Warning> {
    plan.report.reports::<GgufReport>().next()?;
    let bytes: u64 = plan.shards.iter().map(|file| file.len).sum();
    let memory = memory()?;
    (bytes > memory).then(|| {
        let files = counted(plan.shards.len(), "file");
        let problem = format!(
            "the GGUF {files} of {} of GGUF do not fit in the memory of this machine, {}",
            BinaryBytes(bytes),
            BinaryBytes(memory)
        );
        let hint = "write it to disk instead (ckptfs materialize): mounted, what does not fit is computed again for each token";
        Warning::new(Code::LargerThanMemory, problem).with_hint(hint)
    })
}

/// Bytes of memory of this machine.
fn memory() -> Option<u64> {
    total(&std::fs::read_to_string("/proc/meminfo").ok()?)
}

fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_what_the_kernel_says() {
        assert_eq!(
            total("MemTotal:       1000 kB\nMemFree: 1 kB\n"),
            Some(1_024_000)
        );
        assert_eq!(total("nothing"), None);
    }
}
