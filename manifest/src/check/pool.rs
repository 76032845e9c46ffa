//! Checks of a pool across its fields.

use crate::decode::At;
use crate::fault::{Code, Faults};
use crate::{PoolSpec, WhenEmpty};

pub(crate) fn pool(spec: &PoolSpec, at: &At<'_>, faults: &mut Faults) {
    let size = at.field("size");
    if !faults.any_below("spec.size.min") && !faults.any_below("spec.size.max") {
        let (min, max) = (spec.size.min, spec.size.max);
        if min > max {
            let at = size.field("min");
            at.report(at.error(Code::Conflict, format!("expected at most max, {max}")), faults);
        } else if spec.size.target.is_some_and(|target| !(min..=max).contains(&target)) {
            let at = size.field("target");
            at.report(at.error(Code::Conflict, format!("expected min to max, {min} to {max}")), faults);
        }
    }
    let queue = at.field("queue");
    if spec.queue.when_empty == WhenEmpty::Wait && spec.queue.length == 0 {
        let at = queue.field("length");
        at.report(at.error(Code::Conflict, "nobody could wait, and `whenEmpty` is wait"), faults);
    }
}
