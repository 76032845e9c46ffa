//! Precedence, faults and the page of documentation.

use super::*;

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn faults(sources: &Sources) -> Vec<String> {
    Config::load(sources).expect_err("the sources are faulty").iter().map(Fault::to_string).collect()
}

#[test]
fn later_sources_win() {
    let file = "drain_ms = 1\nrequest_ms = 200\nlog = 'warn'\n";
    let sources = Sources {
        file: Some((PathBuf::from("c.toml"), file.to_owned())),
        environment: pairs(&[
            ("HYPERCODE_REQUEST_MS", "300"),
            ("HYPERCODE_LOG", "debug"),
            ("HYPERCODE_LISTEN", ""),
            ("HOME", "/home/ada"),
        ]),
        flags: pairs(&[("log", "trace")]),
    };
    let config = Config::load(&sources).expect("the sources are right");
    assert_eq!((config.drain_ms, config.request_ms, config.log.as_str()), (1, 300, "trace"));
    assert_eq!(config.data_dir, Path::new("/home/ada/.local/share/hypercode"));
    assert_eq!(config.connections_max, Config::default().connections_max);
}

#[test]
fn every_fault_has_its_place_and_what_would_be_right() {
    let file = "\nlisen = '127.0.0.1:1'\n  request_ms = 'soon'\nlog = ['a']\n";
    let sources = Sources {
        file: Some((PathBuf::from("c.toml"), file.to_owned())),
        environment: pairs(&[("HYPERCODE_DATADIR", "/x"), ("HYPERCODE_TOKEN", "secret")]),
        flags: pairs(&[("listen", "0.0.0.0:80"), ("colour", "red")]),
    };
    let found = faults(&sources);
    assert_eq!(found[0], "c.toml:2:1: unknown setting `lisen`; did you mean `listen`?");
    assert_eq!(
        found[1],
        "c.toml:3:3: `request_ms`: found `soon`, expected a whole number from 100 to 600000"
    );
    assert_eq!(found[2], "c.toml:4:1: `log`: found array, expected a single value");
    assert_eq!(
        found[3],
        "HYPERCODE_DATADIR: unknown setting `HYPERCODE_DATADIR`; did you mean `HYPERCODE_DATA_DIR`?"
    );
    assert!(found[4].starts_with("command line: unknown setting `colour`; the settings are data_dir, "));
    assert!(found[5].starts_with("the settings together: `listen`: found `0.0.0.0:80`, which others than"));
    assert_eq!(found.len(), 6);
}

#[test]
fn others_than_this_machine_are_listened_to_in_tls_only() {
    let set = |flags: &[(&str, &str)]| {
        Config::load(&Sources { flags: pairs(flags), ..Sources::default() })
            .map_err(|faults| faults[0].to_string())
    };
    let both = [("listen", "0.0.0.0:80"), ("tls_cert", "/c.pem"), ("tls_key", "/k.pem")];
    assert!(set(&both).unwrap().tls().is_some());
    assert!(set(&both[..1]).unwrap_err().contains("set `tls_cert` and `tls_key`, so that"));
    for half in [&both[..2], &both[1..2], &both[2..]] {
        assert!(set(half).unwrap_err().contains("belong together"), "{half:?}");
    }
}

#[test]
fn a_password_is_shown_neither_in_faults_nor_in_the_configuration() {
    let set = |url: &str| {
        let environment = pairs(&[("HYPERCODE_NATS_URL", url)]);
        Config::load(&Sources { environment, ..Sources::default() })
    };
    let config = set("nats://desk:s3cret@localhost:4222").expect("the address is right");
    assert!(config.nats.url.is_some() && !format!("{config:?}").contains("s3cret"));
    for bad in ["http://desk:s3cret@localhost", "desk:s3cret@localhost:x", "nats://a@b:s3cret@h h"] {
        let faults = format!("{:?}", set(bad).expect_err("the address is wrong"));
        assert!(faults.contains("HYPERCODE_NATS_URL") && !faults.contains("s3cret"), "{faults}");
    }
}

#[test]
fn a_file_that_is_not_toml_is_one_fault() {
    let sources =
        Sources { file: Some((PathBuf::from("c.toml"), "log = \n".to_owned())), ..Sources::default() };
    let found = faults(&sources);
    assert_eq!(found.len(), 1);
    assert!(found[0].starts_with("c.toml:1:"), "{found:?}");
}

#[test]
fn the_documented_defaults_are_the_defaults() {
    let mut config = Config::default();
    for setting in SETTINGS {
        let quoted = setting.default.strip_prefix('`').and_then(|value| value.strip_suffix('`'));
        let Some(value) = quoted else { continue };
        if !value.contains(['$', '<']) {
            (setting.set)(&mut config, value).expect("a default is legal");
        }
    }
    assert_eq!(config, Config::default());
}

#[test]
fn the_page_of_documentation_is_up_to_date() {
    let page = include_str!("../../docs/configuration.md");
    assert!(page.contains(&table()), "put this table into docs/configuration.md:\n{}", table());
}
