use proptest::prelude::*;

use super::*;

fn grant(text: &str) -> Grant {
    let grant: Grant = text.parse().expect("a role and a scope");
    assert_eq!(grant.to_string(), text);
    grant
}

fn at(text: &str) -> Scope {
    text.parse().expect("a scope")
}

/// The same decision as a sentence: some role that permits it was given where it is done, or around that, and nothing
/// of the platform is done by who has no role in the platform, and nothing of a tenant by who has none in it.
fn model(grants: &[(Role, [Option<u8>; 2])], permission: &str, at: [Option<u8>; 2]) -> bool {
    let level = PERMISSIONS.iter().find(|(name, _)| *name == permission).expect("known").1;
    for (role, place) in grants {
        let depth = place.iter().flatten().count();
        let deep_enough = match level {
            Level::Platform => depth == 0,
            Level::Tenant => depth <= 1,
            Level::Crew | Level::Own => true,
        };
        let around = level == Level::Own || (0..depth).all(|part| place[part] == at[part]);
        if role.permits(permission) && deep_enough && around {
            return true;
        }
    }
    false
}

fn scope(place: [Option<u8>; 2]) -> Scope {
    match place {
        [Some(tenant), Some(crew)] => at(&format!("crew:t{tenant}/cr_{tenant}{crew}")),
        [Some(tenant), None] => at(&format!("tenant:t{tenant}")),
        _ => Scope::Platform,
    }
}

fn places() -> impl Strategy<Value = [Option<u8>; 2]> {
    prop_oneof![
        Just([None, None]),
        (0..3_u8).prop_map(|tenant| [Some(tenant), None]),
        (0..3_u8, 0..3_u8).prop_map(|(tenant, crew)| [Some(tenant), Some(crew)]),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn the_decision_is_that_of_the_model(
        assigned in proptest::collection::vec((proptest::sample::select(&Role::ALL[..]), places()), 0..6),
        permission in proptest::sample::select(PERMISSIONS),
        place in places(),
    ) {
        let (permission, _) = permission;
        let grants: Vec<Grant> =
            assigned.iter().map(|(role, place)| Grant { role: *role, scope: scope(*place) }).collect();
        let expected = model(&assigned, permission, place);
        prop_assert_eq!(is_permitted(&grants, permission, &scope(place)), expected);
        // What is seen of a tenant is the same decision for each of its crews.
        if let [Some(number), crew] = place {
            let (tenant, sight) = match scope(place) {
                Scope::Tenant(tenant) | Scope::Crew(tenant, _) => (tenant.clone(), sight(&grants, permission, &tenant)),
                Scope::Platform => unreachable!("it names a tenant"),
            };
            let id = crew.map(|crew| format!("cr_{number}{crew}").parse().expect("an id"));
            prop_assert_eq!(sight.takes_in(id.as_ref()), expected, "{} {:?}", tenant, sight);
        }
    }

    #[test]
    fn what_may_be_given_makes_nobody_more_than_who_gives_it(
        own in proptest::collection::vec((proptest::sample::select(&Role::ALL[..]), places()), 0..4),
        role in proptest::sample::select(&Role::ALL[..]),
        given in places(),
        place in places(),
    ) {
        let own: Vec<Grant> = own.iter().map(|(role, place)| Grant { role: *role, scope: scope(*place) }).collect();
        let given = Grant { role, scope: scope(given) };
        if missing_of(&own, &given).is_none() {
            for (permission, _) in PERMISSIONS {
                let gained = is_permitted(std::slice::from_ref(&given), permission, &scope(place));
                prop_assert!(!gained || is_permitted(&own, permission, &scope(place)), "{permission}");
            }
        }
    }
}

#[test]
fn nobody_gives_away_what_they_do_not_have() {
    let missing = |own: &str, given: &str| missing_of(&[grant(own)], &grant(given));
    assert_eq!(missing("tenant_admin", "developer"), None);
    assert_eq!(missing("tenant_admin", "platform_admin"), Some("audit:checkpoint"));
    assert_eq!(missing("viewer", "approver"), Some("approval:answer"));
    for role in Role::ALL {
        let given = Grant::everywhere(role);
        assert_eq!(missing_of(std::slice::from_ref(&given), &given), None);
        assert_eq!(missing_of(&[grant("platform_admin")], &given), None);
    }
    let acme = "tenant_admin@tenant:acme";
    for within in ["operator@tenant:acme", "developer@crew:acme/cr_1", "tenant_admin@tenant:acme"] {
        assert_eq!(missing(acme, within), None, "{within}");
    }
    for beyond in ["viewer", "viewer@tenant:globex", "viewer@crew:globex/cr_1"] {
        assert!(missing(acme, beyond).is_some(), "{beyond}");
    }
    assert!(missing("tenant_admin@crew:acme/cr_1", acme).is_some());
}

#[test]
fn nothing_is_permitted_where_nothing_was_given() {
    assert!(!is_permitted(&[], "crew:read", &at("crew:acme/cr_1")));
    let crew = [grant("tenant_admin@crew:acme/cr_1")];
    assert!(is_permitted(&crew, "task:cancel", &at("crew:acme/cr_1")));
    for (permission, at) in [
        ("task:cancel", at("crew:acme/cr_2")),
        ("task:cancel", at("tenant:acme")),
        ("role:grant", at("crew:acme/cr_1")),
        ("secret:set", at("tenant:acme")),
    ] {
        assert!(!is_permitted(&crew, permission, &at), "{permission} {at}");
    }
    let tenant = [grant("platform_admin@tenant:acme")];
    assert!(is_permitted(&tenant, "secret:set", &at("tenant:acme")));
    assert!(!is_permitted(&tenant, "key:rotate", &at("tenant:acme")), "keys are the platform's");
    let seen = sight(&crew, "task:read", &"acme".parse().expect("a tenant"));
    assert_eq!(seen, Sight::Crews(BTreeSet::from(["cr_1".parse().expect("an id")])));
    assert!(!seen.takes_in(None), "what belongs to no crew is not seen by who has but one");
}
