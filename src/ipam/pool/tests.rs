use super::*;
use crate::ErrorKind;

fn network(text: &str) -> IpNetwork {
    text.parse().expect("a network")
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn pool(text: &str) -> Pool {
    Pool::new(network(text), &IpamConfig::new()).expect("a pool")
}

fn drain(pool: &mut Pool) -> Vec<String> {
    let mut drained = Vec::new();
    while let Ok(address) = pool.next(Instant::now()) {
        pool.take(address);
        drained.push(address.to_string());
    }
    drained
}

#[test]
fn every_small_prefix_length() {
    for (text, expected) in [
        ("10.0.0.0/29", "10.0.0.1 10.0.0.2 10.0.0.3 10.0.0.4 10.0.0.5 10.0.0.6"),
        ("10.0.0.4/30", "10.0.0.5 10.0.0.6"),
        ("10.0.0.4/31", "10.0.0.4 10.0.0.5"),
        ("10.0.0.4/32", "10.0.0.4"),
        ("fd00::8/125", "fd00::9 fd00::a fd00::b fd00::c fd00::d fd00::e fd00::f"),
        ("fd00::8/126", "fd00::9 fd00::a fd00::b"),
        ("fd00::8/127", "fd00::8 fd00::9"),
        ("fd00::8/128", "fd00::8"),
        ("255.255.255.252/30", "255.255.255.253 255.255.255.254"),
        ("::/126", "::2 ::3"),
        ("126.255.255.254/31", "126.255.255.254 126.255.255.255"),
    ] {
        let mut pool = pool(text);
        let capacity = pool.usage().capacity;
        let drained = drain(&mut pool);
        assert_eq!(drained.join(" "), expected, "{text}");
        assert_eq!(capacity, drained.len() as u128, "{text}");
        assert_eq!(pool.next(Instant::now()).expect_err("drained").kind(), ErrorKind::Exhausted);
    }
}

#[test]
fn capacity_of_large_prefixes() {
    for (text, capacity, first) in [
        ("10.0.0.0/8", (1 << 24) - 2, "10.0.0.1"),
        ("128.0.0.0/1", (1 << 31) - (1 << 28) - 2, "128.0.0.1"),
        ("0.0.0.0/0", (1 << 32) - (1 << 24) - (1 << 24) - (1 << 28) - 1, "1.0.0.0"),
        ("fd00::/120", 255, "fd00::1"),
        ("fd00::/96", (1 << 32) - 1, "fd00::1"),
        ("fd00::/64", (1 << 64) - 1, "fd00::1"),
        ("fe00::/9", (1 << 119) - 1, "fe00::1"),
        ("::/0", u128::MAX - 1 - (1 << 120), "::2"),
    ] {
        let pool = pool(text);
        assert_eq!(pool.usage().capacity, capacity, "{text}");
        assert_eq!(pool.next(Instant::now()).expect("free"), ip(first), "{text}");
    }
}

#[test]
fn ranges_without_hosts_are_refused() {
    for text in
        ["127.0.0.0/8", "224.0.1.0/24", "0.0.0.0/16", "::/128", "::1/128", "ff02::/16", "255.255.255.255/32", "::/127"]
    {
        let error = Pool::new(network(text), &IpamConfig::new()).expect_err(text);
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{text}");
    }
}

#[test]
fn exclusions_are_never_handed_out_and_say_so() {
    let config = IpamConfig::new()
        .exclude(ip("10.0.0.1"))
        .exclude(network("10.0.0.4/30"))
        .exclude(network("192.168.0.0/16"))
        .exclude(network("::/0"));
    let mut pool = Pool::new(network("10.0.0.0/28"), &config).expect("a pool");
    assert_eq!(pool.usage().capacity, 9);
    assert_eq!(pool.usage().excluded, 7);
    assert!(pool.refuses(ip("10.0.0.6")).is_some_and(|reason| reason.contains("excluded")));
    assert!(pool.refuses(ip("10.0.0.15")).is_some_and(|reason| reason.contains("reserved")));
    assert!(pool.refuses(ip("10.0.0.16")).is_some_and(|reason| reason.contains("outside")));
    assert!(pool.refuses(ip("::a00:2")).is_some_and(|reason| reason.contains("outside")));
    assert_eq!(pool.refuses(ip("10.0.0.2")), None);
    assert_eq!(
        drain(&mut pool).join(" "),
        "10.0.0.2 10.0.0.3 10.0.0.8 10.0.0.9 10.0.0.10 10.0.0.11 10.0.0.12 10.0.0.13 10.0.0.14"
    );
    let all = IpamConfig::new().exclude(network("10.0.0.0/8"));
    let pool = Pool::new(network("10.0.0.0/28"), &all).expect("a pool, if an empty one");
    assert_eq!(pool.usage().capacity, 0);
    assert_eq!(pool.next(Instant::now()).expect_err("empty").kind(), ErrorKind::Exhausted);
}

#[test]
fn released_addresses_come_last_in_the_order_of_release() {
    let now = Instant::now();
    let mut pool = pool("10.0.0.0/29");
    for _ in 0..4 {
        pool.take(pool.next(now).expect("free"));
    }
    pool.put_back(ip("10.0.0.3"), now);
    pool.put_back(ip("10.0.0.1"), now);
    assert_eq!(drain(&mut pool).join(" "), "10.0.0.5 10.0.0.6 10.0.0.3 10.0.0.1");
    // a resting address that is asked for is no longer in the queue
    pool.put_back(ip("10.0.0.2"), now);
    pool.put_back(ip("10.0.0.4"), now);
    pool.take(ip("10.0.0.2"));
    assert_eq!(drain(&mut pool).join(" "), "10.0.0.4");
}

#[test]
fn a_strict_delay_exhausts_the_pool() {
    let now = Instant::now();
    let config = IpamConfig::new().reuse_delay(Duration::from_secs(10)).strict_reuse_delay(true);
    let mut pool = Pool::new(network("10.0.0.0/30"), &config).expect("a pool");
    for _ in 0..2 {
        pool.take(pool.next(now).expect("free"));
    }
    pool.put_back(ip("10.0.0.2"), now);
    pool.put_back(ip("10.0.0.1"), now + Duration::from_secs(5));
    assert_eq!(pool.available(now + Duration::from_secs(9)), 0);
    assert_eq!(pool.next(now + Duration::from_secs(9)).expect_err("resting").kind(), ErrorKind::Exhausted);
    assert_eq!(pool.available(now + Duration::from_secs(10)), 1);
    assert_eq!(pool.next(now + Duration::from_secs(10)).expect("rested"), ip("10.0.0.2"));
    assert_eq!(pool.available(now + Duration::from_secs(15)), 2);
}

/// Churn in a huge pool: memory stays bounded, no address is used again soon, and none is lost.
#[test]
fn churn_does_not_grow_without_end() {
    let mut now = Instant::now();
    let config = IpamConfig::new().reuse_delay(Duration::from_secs(10));
    let mut pool = Pool::new(network("fd00::/64"), &config).expect("a pool");
    pool.remembered = 100;
    let mut used = std::collections::HashSet::new();
    for _ in 0..5_000 {
        let address = pool.next(now).expect("free");
        assert!(used.insert(address), "{address} was used again while fresh ones are left");
        pool.take(address);
        pool.put_back(address, now);
        now += Duration::from_millis(50);
    }
    assert!(pool.resting.len() <= 201, "{} are remembered", pool.resting.len());
    assert!(pool.is_fresh(ip("fd00::1")), "the first is forgotten");
    assert_eq!(pool.in_use, 0);
    assert_eq!(pool.available(now), pool.capacity());
}

/// What is forgotten is found again after the pool's end was reached.
#[test]
fn the_search_wraps_around() {
    let now = Instant::now();
    let config = IpamConfig::new().reuse_delay(Duration::ZERO);
    let mut pool = Pool::new(network("10.0.0.0/29"), &config).expect("a pool");
    pool.remembered = 1;
    drain(&mut pool);
    for number in [2, 5, 3] {
        pool.put_back(ip(&format!("10.0.0.{number}")), now);
    }
    assert_eq!(drain(&mut pool).join(" "), "10.0.0.2 10.0.0.5 10.0.0.3");
}
