//! Packets in pieces.

use super::*;

const NO_FIRST: u8 = 175;

#[test]
fn later_ones_are_of_the_connection_of_the_first() {
    in_both_families(|scene| {
        let family = scene.family;
        scene.policy(Db, &lets_in(&[allow(Ingress, WEB, Some(UDP), 53), allow(Ingress, WEB, Some(TCP), 80)]));
        let rest = |protocol| Said { protocol, upper: b"the rest of it".to_vec() };
        assert_eq!(scene.send_piece(Web, Db, &rest(UDP), 8, true), Dropped(NO_FIRST, Egress), "before the first");
        assert_eq!(scene.send_piece(Web, Db, &udp(5000, 53), 0, true), Passed);
        assert_eq!(scene.send_piece(Web, Db, &rest(UDP), 16, true), Passed);
        assert_eq!(scene.send_piece(Web, Db, &rest(UDP), 8, false), Passed, "in any order");
        assert_eq!(scene.connections(), 1);
        let (entry, _) = scene.entry((Web, 5000), (Db, 53), UDP).expect("the connection");
        assert_eq!(entry.dir[0].packets(), 3);
        // Not of another protocol, sender or receiver.
        assert_eq!(scene.send_piece(Web, Db, &rest(TCP), 8, false), Dropped(NO_FIRST, Egress));
        assert_eq!(scene.send_piece(Cache, Db, &rest(UDP), 8, false), Dropped(NO_FIRST, Egress));
        assert_eq!(scene.send_piece(Web, Cache, &rest(UDP), 8, false), Dropped(NO_FIRST, Egress));
        assert_eq!(scene.send_piece(Outside, Db, &rest(UDP), 8, false), Dropped(NO_FIRST, Ingress));
        // The first of another packet with the same number.
        assert_eq!(scene.send_piece(Web, Db, &udp(5000, 54), 0, true), Dropped(NO_POLICY_MATCHED, Ingress));
        assert_eq!(scene.send_piece(Web, Db, &rest(UDP), 8, false), Dropped(NO_POLICY_MATCHED, Ingress));
        // TCP: what follows counts as an ACK.
        assert_eq!(scene.send_piece(Web, Db, &to_db(SYN), 0, true), Passed);
        assert_eq!(super::entry(scene).flags, 0);
        assert_eq!(scene.send_piece(Web, Db, &rest(TCP), 24, false), Passed);
        assert_eq!(super::entry(scene).flags, CtEntry::SEEN_NON_SYN);
        // Echo, both ways.
        scene.policy(Db, &lets_in(&[allow(Ingress, WEB, None, 0)]));
        let protocol = echo(family, 7).protocol;
        assert_eq!(scene.send_piece(Web, Db, &echo(family, 7), 0, true), Passed);
        assert_eq!(scene.send_piece(Web, Db, &rest(protocol), 8, false), Passed);
        assert_eq!(scene.send_piece(Db, Web, &echo_reply(family, 7), 0, true), Passed);
        assert_eq!(scene.send_piece(Db, Web, &rest(protocol), 8, false), Passed);
    });
}

/// The fragment header announces what the fragmented part begins with, and that only the first piece bears (RFC 8200, 4.5).
#[test]
fn later_ones_may_announce_an_extension_header_of_the_first() {
    in_both_families(|scene| {
        if scene.family == V4 {
            return;
        }
        const OPTIONS: u8 = 60;
        let denied = Dropped(NO_POLICY_MATCHED, Ingress);
        let rest = |protocol| Said { protocol, upper: b"the rest of it".to_vec() };
        let first = |said: &Said| {
            let options = [said.protocol, 0, 1, 4, 0, 0, 0, 0];
            Said { protocol: OPTIONS, upper: [&options, &said.upper[..]].concat() }
        };
        scene.policy(Db, &lets_in(&[allow(Ingress, WEB, Some(UDP), 53)]));
        assert_eq!(scene.send_piece(Web, Db, &rest(OPTIONS), 16, true), denied, "as what it announces");
        assert_eq!(scene.send_piece(Web, Db, &first(&udp(5000, 53)), 0, true), Passed);
        assert_eq!(scene.send_piece(Web, Db, &rest(OPTIONS), 16, true), Passed);
        assert_eq!(scene.send_piece(Web, Db, &rest(UDP), 24, false), Passed, "announced otherwise");
        let (entry, _) = scene.entry((Web, 5000), (Db, 53), UDP).expect("the connection");
        assert_eq!(entry.dir[0].packets(), 3);
        assert_eq!(scene.send_piece(Cache, Db, &rest(OPTIONS), 16, true), denied, "of another sender");
        scene.begin_anew();
        scene.policy(Db, &lets_in(&[allow(Ingress, WEB, Some(UDP), 53)]));
        assert_eq!(scene.send_piece(Web, Db, &first(&udp(5000, 54)), 0, true), denied);
        assert_eq!(scene.send_piece(Web, Db, &rest(OPTIONS), 16, true), denied);
        for said in [to_db(SYN), sctp(1, 2), echo(V6, 7)] {
            scene.begin_anew();
            scene.policy(Db, &lets_in(&[allow(Ingress, WEB, Some(said.protocol), 0)]));
            assert_eq!(scene.send_piece(Web, Db, &first(&said), 0, true), Passed, "{said:?}");
            assert_eq!(scene.send_piece(Web, Db, &rest(OPTIONS), 40, true), Passed, "behind {said:?}");
            assert_eq!(scene.connections(), 1);
        }
    });
}

#[test]
fn a_first_one_bears_its_whole_transport_header() {
    in_both_families(|scene| {
        let family = scene.family;
        for (said, least) in [(to_db(SYN), 20), (udp(1, 2), 8), (sctp(1, 2), 12), (echo(family, 1), 8)] {
            let cut = |length: usize| Said { upper: said.upper[..length].to_vec(), ..said.clone() };
            assert_eq!(scene.send_piece(Web, Db, &cut(least - 1), 0, true), Dropped(INVALID, Egress));
            let rest = Said { protocol: said.protocol, upper: vec![0; 8] };
            assert_eq!(scene.send_piece(Web, Db, &rest, 16, true), Dropped(NO_FIRST, Egress), "nothing is noted");
            assert_eq!(scene.send_piece(Web, Db, &cut(least), 0, true), Passed);
            assert_eq!(scene.send_piece(Web, Db, &rest, 16, true), Passed);
        }
    });
}

#[test]
fn protocols_without_ports_need_no_first() {
    in_both_families(|scene| {
        assert_eq!(scene.send_piece(Web, Db, &plain(47), 8, true), Passed);
        scene.policy(Db, &lets_in(&[allow(Ingress, WEB, Some(50), 0)]));
        assert_eq!(scene.send_piece(Web, Db, &plain(47), 8, true), Dropped(NO_POLICY_MATCHED, Ingress));
        assert_eq!(scene.send_piece(Web, Db, &plain(50), 8, true), Passed);
    });
}

#[test]
fn a_piece_that_is_the_whole_is_no_piece() {
    in_both_families(|scene| {
        assert_eq!(scene.send_piece(Web, Db, &udp(1, 2), 0, false), Passed);
        assert_eq!(scene.send_piece(Web, Db, &plain(UDP), 8, false), Dropped(NO_FIRST, Egress), "nothing is noted");
    });
}

#[test]
fn the_rest_of_an_error_is_no_error() {
    in_both_families(|scene| {
        let family = scene.family;
        let kind = if family == V4 { 3 } else { 1 };
        assert_eq!(scene.send(Web, Db, &to_db(SYN)), Passed);
        scene.policy(Web, &[allow(Egress, DB, None, 0)]);
        let about = icmp(family, kind, 0, &inner(scene, Web, Db, &to_db(SYN)));
        assert_eq!(scene.send_piece(Outside, Web, &about, 0, true), Passed, "the first tells what it is about");
        // What follows looks like an error, but is its payload.
        assert_eq!(scene.send_piece(Outside, Web, &about, 64, false), Dropped(NO_POLICY_MATCHED, Ingress));
    });
}
