//! Reading the spec of a pool.

use crate::decode::profile::{image, resources, runtime_class};
use crate::decode::{At, Fields, choice, name, number, quantity, whole};
use crate::fault::Faults;
use crate::{Millis, PoolSize, PoolSpec, Queue, Refill, Standby, WhenEmpty};

pub(crate) fn pool_spec(at: &At<'_>, faults: &mut Faults) -> PoolSpec {
    let ages = Millis::from_secs(1)..=Millis::from_secs(30 * 86_400);
    let mut fields = Fields::of(at, faults);
    let spec = PoolSpec {
        image: fields.optional("image", image),
        runtime_class: fields.optional("runtimeClass", runtime_class),
        resources: fields.optional("resources", resources).unwrap_or_default(),
        size: fields.optional("size", size).unwrap_or_default(),
        standby: fields
            .optional("standby", choice(&[("running", Standby::Running), ("paused", Standby::Paused)]))
            .unwrap_or_default(),
        prestart: fields.optional("prestart", name),
        refill: fields.optional("refill", refill).unwrap_or_default(),
        queue: fields.optional("queue", queue).unwrap_or_default(),
        max_age: fields.optional("maxAge", quantity(ages)),
    };
    fields.finish();
    spec
}

fn size(at: &At<'_>, faults: &mut Faults) -> Option<PoolSize> {
    let default = PoolSize::default();
    let mut fields = Fields::of(at, faults);
    let size = PoolSize {
        min: fields.optional("min", whole(0..=PoolSize::MAX)).unwrap_or(default.min),
        max: fields.optional("max", whole(1..=PoolSize::MAX)).unwrap_or(default.max),
        target: fields.optional("target", whole(0..=PoolSize::MAX)),
    };
    fields.finish();
    Some(size)
}

fn refill(at: &At<'_>, faults: &mut Faults) -> Option<Refill> {
    let default = Refill::default();
    let mut fields = Fields::of(at, faults);
    let refill = Refill {
        concurrency: fields
            .optional("concurrency", whole(1..=Refill::CONCURRENCY_MAX))
            .unwrap_or(default.concurrency),
        coverage: fields
            .optional("coverage", number(Refill::COVERAGE_MIN..=Refill::COVERAGE_MAX))
            .unwrap_or(default.coverage),
        idle: fields.optional("idle", quantity(Refill::IDLE_MIN..=Refill::IDLE_MAX)).unwrap_or(default.idle),
    };
    fields.finish();
    Some(refill)
}

fn queue(at: &At<'_>, faults: &mut Faults) -> Option<Queue> {
    let default = Queue::default();
    let mut fields = Fields::of(at, faults);
    let queue = Queue {
        when_empty: fields
            .optional("whenEmpty", choice(&[("cold", WhenEmpty::Cold), ("wait", WhenEmpty::Wait)]))
            .unwrap_or(default.when_empty),
        length: fields.optional("length", whole(0..=Queue::LENGTH_MAX)).unwrap_or(default.length),
        deadline: fields
            .optional("deadline", quantity(Millis::new(0)..=Queue::DEADLINE_MAX))
            .unwrap_or(default.deadline),
    };
    fields.finish();
    Some(queue)
}
