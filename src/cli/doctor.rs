//! `ckptfs doctor`: what this machine has for mounts, and a mount of a tiny view to see.

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, bail};
use clap::Args;
use safetensors::tensor::{Dtype, TensorView};
use serde::Serialize;

use ckptfs::error::Code;
use ckptfs::fuse::{self, Check, Level, MountOptions};
use ckptfs::kernels::CpuPath;
use ckptfs::ops::{Operations, QuantizeParams};
use ckptfs::read::Reader;
use ckptfs::recipe::ViewRequest;

use crate::cli::messages;
use crate::cli::plan::to_stdout;

/// How to print the result.
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Print everything as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Json<'a> {
    /// Whether a view could be mounted and read.
    works: bool,
    checks: &'a [Check],
}

/// Prints the checks; the exit code says whether mounts work.
pub(crate) fn run(args: &DoctorArgs) -> anyhow::Result<ExitCode> {
    let mut checks = fuse::checkup(messages::flag);
    checks.push(processor());
    let rehearsal = rehearse();
    let works = rehearsal.is_ok();
    checks.push(match rehearsal {
        Ok(()) => Check::ok("mount", "a tiny view was mounted, read, and taken away"),
        Err(error) => {
            let (code, text) = messages::parts(&error);
            Check::fail("mount", code.unwrap_or(Code::Internal), text)
        }
    });
    to_stdout(&if args.json {
        let checks = &checks;
        serde_json::to_string_pretty(&Json { works, checks })? + "\n"
    } else {
        text(&checks, works)
    })?;
    Ok(if works {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn text(checks: &[Check], works: bool) -> String {
    let mut text = String::new();
    for check in checks {
        let level = match check.level {
            Level::Ok => "ok",
            Level::Warn => "warn",
            Level::Fail => "FAIL",
        };
        let code = check.code.map(|code| format!("[{code}] "));
        let code = code.unwrap_or_default();
        text += &format!("{level:<4}  {:<13}  {code}{}\n", check.name, check.found);
        if let Some(cost) = check.cost {
            text += &format!("{:21}costs: {cost}\n", "");
        }
    }
    text + if works {
        "mounts work\n"
    } else {
        "mounts do not work; materialize, plan, verify and inspect do\n"
    }
}

fn processor() -> Check {
    const NAME: &str = "processor";
    let (best, available) = (CpuPath::best(), CpuPath::available());
    let fastest = available.last().copied().unwrap_or(CpuPath::Scalar);
    let cost = "FP8, merges and casts are computed more slowly; the bytes are the same";
    match best {
        _ if best != fastest => Check::warn(
            NAME,
            format!(
                "{}; {} is switched off by the environment",
                best.name(),
                fastest.name()
            ),
            cost,
        ),
        CpuPath::Scalar => Check::warn(
            NAME,
            "no vector instructions that ckptfs uses (AVX2, AVX-512, NEON)",
            cost,
        ),
        _ => Check::ok(NAME, format!("{} is used", best.name())),
    }
}

/// Mounts a view of one tensor, quantized, and compares every file with what it must be.
fn rehearse() -> anyhow::Result<()> {
    let directory = tempfile::tempdir().context("cannot make a temporary directory")?;
    let [base, mountpoint] = ["base", "view"].map(|name| directory.path().join(name));
    for path in [&base, &mountpoint] {
        fs::create_dir(path).with_context(|| path.display().to_string())?;
    }
    write_checkpoint(&base)?;
    let request = ViewRequest {
        operations: Operations {
            quantize: QuantizeParams::by_rules(),
            ..Operations::default()
        },
        ..ViewRequest::new(&base)
    };
    let plan = request.plan()?;
    let reader = Arc::new(Reader::new(plan.view.clone(), 1 << 20));
    let options = MountOptions {
        threads: Some(2),
        source_name: base.into(),
        sources: request.sources(),
        ..MountOptions::default()
    };
    let mounted = fuse::mount(reader.clone(), &mountpoint, &options)?;
    let compared = compare(&reader, &mountpoint);
    mounted.unmount()?;
    compared
}

fn write_checkpoint(base: &Path) -> anyhow::Result<()> {
    let bytes: Vec<u8> = (0..128 * 128u32).flat_map(|i| [i as u8, 0x3f]).collect();
    let tensor = TensorView::new(Dtype::BF16, vec![128, 128], &bytes)?;
    let name = "model.layers.0.self_attn.o_proj.weight";
    safetensors::serialize_to_file([(name, tensor)], None, &base.join("model.safetensors"))?;
    Ok(fs::write(base.join("config.json"), "{}")?)
}

fn compare(reader: &Reader, mountpoint: &Path) -> anyhow::Result<()> {
    for (id, path, content) in reader.view().files() {
        let mut expected = vec![0; content.len() as usize];
        reader.read_at(id, 0, &mut expected)?;
        let shown = path.display();
        let found = fs::read(mountpoint.join(&path)).with_context(|| shown.to_string())?;
        if found != expected {
            bail!("{shown}: the mount gives other bytes than were planned; please report this");
        }
    }
    Ok(())
}
