//! The real binary as its users have it: `up` in one terminal, commands in another, handlers of their own, and whatever
//! goes wrong between them.

#[path = "e2e/access.rs"]
mod access;
#[path = "e2e/agent_keys.rs"]
mod agent_keys;
#[path = "e2e/attacks.rs"]
mod attacks;
#[path = "e2e/audit.rs"]
mod audit;
#[path = "e2e/budget.rs"]
mod budget;
#[path = "e2e/demo.rs"]
mod demo;
#[path = "e2e/disk.rs"]
mod disk;
#[path = "e2e/docker.rs"]
mod docker;
#[path = "e2e/erasure.rs"]
mod erasure;
#[path = "e2e/example.rs"]
mod example;
#[path = "e2e/faults.rs"]
mod faults;
#[path = "e2e/hostile.rs"]
mod hostile;
#[path = "e2e/images.rs"]
mod images;
#[path = "e2e/input.rs"]
mod input;
#[path = "e2e/issuers.rs"]
mod issuers;
#[path = "e2e/keys.rs"]
mod keys;
#[path = "e2e/lifecycle.rs"]
mod lifecycle;
#[path = "e2e/moving.rs"]
mod moving;
#[path = "e2e/nats.rs"]
mod on_nats;
#[path = "e2e/one_use.rs"]
mod one_use;
#[path = "e2e/pool.rs"]
mod pool;
#[path = "e2e/postgres.rs"]
mod postgres;
#[path = "e2e/prestart.rs"]
mod prestart;
#[path = "e2e/release.rs"]
mod release;
#[path = "e2e/secrets.rs"]
mod secrets;
#[path = "e2e/stage.rs"]
mod stage;
#[path = "e2e/standby.rs"]
mod standby;
#[path = "support/support.rs"]
mod support;
#[path = "e2e/tasks.rs"]
mod tasks;
#[path = "e2e/tcp.rs"]
mod tcp;
#[path = "e2e/up.rs"]
mod up;
#[path = "e2e/vault.rs"]
mod vault;
#[path = "e2e/views.rs"]
mod views;
#[path = "e2e/waits.rs"]
mod waits;
