//! Every bus keeps the laws of the seam.

use hypercode_nats as nats;
use hypercode_nats::conformance::Fixture;
use hypercode_nats::server::Server;

mod memory {
    use super::*;

    struct InMemory(nats::Memory);

    impl Fixture for InMemory {
        type Bus = nats::Memory;
        fn bus(&self) -> nats::Memory {
            self.0.clone()
        }
    }

    nats::bus_conformance!(InMemory(nats::Memory::new()));
}

mod nats_server {
    use super::*;

    struct Served {
        _server: Server,
        bus: nats::Nats,
    }

    impl Fixture for Served {
        type Bus = nats::Nats;
        fn bus(&self) -> nats::Nats {
            self.bus.clone()
        }
    }

    fn served() -> Served {
        let server = Server::start();
        Served { bus: nats::Nats::connect(server.options()), _server: server }
    }

    nats::bus_conformance!(served());
}
