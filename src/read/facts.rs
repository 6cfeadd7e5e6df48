//! Facts about whole tensors, which some kernels need before they can compute a band: found by
//! streaming the inputs once or a few times, on all processors, and kept.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::catalog::{Band, Node, NodeId, Survey};
use crate::error::{Code, Error, Result};
use crate::jobs;
use crate::read::input::Input;
use crate::read::single_flight::{Keep, SingleFlight};

type Facts = Arc<[f64]>;

/// The facts that are known, by node.
#[derive(Debug)]
pub(super) struct FactStore {
    nodes: SingleFlight<NodeId, Facts, HashMap<NodeId, Facts>>,
}

impl Default for FactStore {
    fn default() -> Self {
        FactStore {
            nodes: SingleFlight::new(HashMap::new()),
        }
    }
}

impl FactStore {
    /// The facts of `node`, found by `find` unless they are known. Who asks while they are being
    /// found waits. A failure is given to everyone who waits for it and then forgotten.
    pub(super) fn get_or_find(
        &self,
        node: NodeId,
        find: impl FnOnce() -> Result<Vec<f64>>,
    ) -> Result<Facts> {
        let known = |known: &mut HashMap<NodeId, Facts>| known.get(&node).cloned();
        let find = || find().map(Facts::from);
        self.nodes.get(node, known, find, Facts::clone)
    }
}

impl Keep<NodeId, Facts> for HashMap<NodeId, Facts> {
    fn keep(&mut self, node: NodeId, facts: &Facts) {
        self.insert(node, facts.clone());
    }
}

/// Gives the inputs of a band.
type Inputs<'a> = &'a (dyn Fn(&Band) -> Result<Vec<Input>> + Sync);

/// Streams the `inputs` of `node` as often as `survey` asks for.
pub(super) fn survey(node: &Node, survey: &dyn Survey, inputs: Inputs) -> Result<Vec<f64>> {
    let mut facts = Vec::new();
    for pass in 0..survey.passes() {
        let tally = survey_pass(node, survey, pass, &facts, inputs)?;
        survey.conclude(pass, &tally, &mut facts);
    }
    survey.check(&facts).map_err(|problem| {
        let origin = node.inputs[0].origin();
        Error::of_tensor(Code::MergeUndefined, origin, &node.name, problem)
    })?;
    Ok(facts)
}

fn survey_pass(
    node: &Node,
    survey: &dyn Survey,
    pass: usize,
    facts: &[f64],
    inputs: Inputs,
) -> Result<Vec<f64>> {
    /// Bands whose tallies are joined by one thread, one after the other. The result depends
    /// on it.
    const UNIT: u64 = 4;
    let bands = node.kernel.bands();
    let units = bands.count().div_ceil(UNIT);
    let tally_len = survey.tally_len(pass);
    let sum = Mutex::new(Sum::new(tally_len));
    let next = AtomicU64::new(0);
    let take = |(): &mut ()| {
        let unit = next.fetch_add(1, Ordering::Relaxed);
        (unit < units).then_some(unit)
    };
    let threads = units.min(jobs::processors() as u64) as usize;
    jobs::drain(threads, take, |unit| {
        let mut tally = vec![0.0; tally_len];
        for index in unit * UNIT..((unit + 1) * UNIT).min(bands.count()) {
            let band = bands.band(index);
            if !survey.wants(pass, facts, &band) {
                continue;
            }
            let inputs = inputs(&band)?;
            let inputs: Vec<&[u8]> = inputs.iter().map(Input::bytes).collect();
            survey.tally(pass, facts, &band, &inputs, &mut tally);
        }
        sum.lock().add(survey, unit, tally);
        Ok::<_, Error>(())
    })?;
    Ok(sum.into_inner().total)
}

/// The tallies joined in the order of their units, whichever comes first.
#[derive(Debug)]
struct Sum {
    total: Vec<f64>,
    next: u64,
    early: BTreeMap<u64, Vec<f64>>,
}

impl Sum {
    fn new(len: usize) -> Self {
        Sum {
            total: vec![0.0; len],
            next: 0,
            early: BTreeMap::new(),
        }
    }

    fn add(&mut self, survey: &dyn Survey, unit: u64, tally: Vec<f64>) {
        self.early.insert(unit, tally);
        while let Some(tally) = self.early.remove(&self.next) {
            survey.join(&mut self.total, &tally);
            self.next += 1;
        }
    }
}
