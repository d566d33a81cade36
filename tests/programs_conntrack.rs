//! Connections as the programs follow them, sentence by sentence. Needs root.

#[path = "programs_conntrack/forwarded.rs"]
mod forwarded;
#[path = "programs_conntrack/fragments.rs"]
mod fragments;
#[path = "common/programs.rs"]
mod programs;
#[path = "programs_conntrack/turned.rs"]
mod turned;

use podwire::abi::CtEntry;
use programs::model::Side;
use programs::packets::*;
use programs::scene::*;
use programs::{datapath, rig};

const NO_POLICY_MATCHED: u8 = 133;
const INVALID: u8 = 134;
const INVALID_SOURCE: u8 = 132;
const INVALID_MAC: u8 = 130;
const UNROUTABLE: u8 = 151;

const NEW: u8 = 0;
const ESTABLISHED: u8 = 1;
const CLOSING: u8 = 2;
const CLOSED: u8 = 3;

/// The only way in is TCP to port 80 of Db; nothing goes out of Db.
fn only_to_80(scene: &mut Scene) {
    scene.policy(Db, &[allow(Ingress, WEB, Some(TCP), 80)]);
}

/// What Web says to port 80 of Db, and what that answers.
fn to_db(flags: u8) -> Said {
    tcp(40_000, 80, flags)
}

fn from_db(flags: u8) -> Said {
    tcp(80, 40_000, flags)
}

fn entry(scene: &Scene) -> CtEntry {
    scene.entry((Web, 40_000), (Db, 80), TCP).expect("the connection").0
}

#[test]
fn the_first_packet_makes_the_entry_and_the_answer_needs_no_policy() {
    in_both_families(|scene| {
        only_to_80(scene);
        let length = if scene.family == V4 { 14 + 20 + 24 } else { 14 + 40 + 24 };
        assert_eq!(scene.send(Web, Db, &to_db(SYN)), Passed);
        let (first, side) = scene.entry((Web, 40_000), (Db, 80), TCP).expect("the connection");
        assert_eq!((side, first.opener), (Side::Lo, 0), "the smaller address");
        assert_eq!((first.state, first.flags, first.dir[0].tcp_flags), (NEW, 0, SYN));
        assert_eq!((first.src_label, first.dst_label), (WEB, DB));
        // Numbers of the rules: everything out of Web, port 80 into Db.
        assert_eq!((first.egress_rule, first.ingress_rule), (7000, 7080));
        assert_eq!((first.dir[0].packets(), first.dir[0].bytes()), (1, length));
        assert_eq!((first.dir[1].packets(), first.dir[1].bytes()), (0, 0));

        assert_eq!(scene.send(Db, Web, &from_db(SYN | ACK)), Passed);
        let answered = entry(scene);
        assert_eq!((answered.state, answered.opener), (ESTABLISHED, 0));
        assert_eq!((answered.dir[1].packets(), answered.dir[1].tcp_flags), (1, SYN | ACK));
        assert_eq!(scene.connections(), 1, "one entry for both directions");
        // Who opened is who opened, whichever address is smaller.
        scene.begin_anew();
        assert_eq!(scene.send(Db, Web, &tcp(40_000, 80, SYN)), Passed);
        let (entry, side) = scene.entry((Db, 40_000), (Web, 80), TCP).expect("the connection");
        assert_eq!((side, entry.opener), (Side::Hi, 1));
    });
}

#[test]
fn a_packet_without_an_entry_is_judged_by_itself() {
    in_both_families(|scene| {
        only_to_80(scene);
        // Nobody asked for this answer.
        assert_eq!(scene.send(Db, Web, &from_db(SYN | ACK)), Dropped(NO_POLICY_MATCHED, Egress));
        assert_eq!(scene.send(Db, Web, &from_db(ACK)), Dropped(NO_POLICY_MATCHED, Egress));
        assert_eq!(scene.connections(), 0);
        // The table may have lost the connection: it goes on if it may be.
        assert_eq!(scene.send(Web, Db, &to_db(ACK)), Passed);
        assert_eq!(entry(scene).flags, CtEntry::SEEN_NON_SYN);
        assert_eq!(scene.send(Db, Web, &from_db(ACK)), Passed);
    });
}

#[test]
fn an_entry_whose_time_is_over_counts_as_none() {
    in_both_families(|scene| {
        only_to_80(scene);
        assert_eq!(scene.send(Web, Db, &to_db(SYN)), Passed);
        assert_eq!(scene.send(Db, Web, &from_db(SYN | ACK)), Passed);
        scene.let_all_die();
        assert_eq!(scene.send(Db, Web, &from_db(ACK)), Dropped(NO_POLICY_MATCHED, Egress));
        assert_eq!(entry(scene).state, ESTABLISHED, "what is denied changes nothing");
        assert_eq!(scene.send(Web, Db, &to_db(ACK)), Passed);
        let revived = entry(scene);
        assert_eq!((revived.state, revived.dir[0].packets(), revived.dir[1].packets()), (NEW, 1, 0), "it begins anew");
    });
}

#[test]
fn states_flags_and_lifetimes_of_tcp() {
    // Packets, then state, whether more than the SYN was seen, whether it was reset, and seconds of either direction.
    type Case<'a> = (&'a [(Who, u8)], u8, bool, bool, (u64, u64));
    let cases: [Case<'_>; 17] = [
        (&[(Web, SYN)], NEW, false, false, (60, 0)),
        (&[(Web, SYN), (Web, SYN)], NEW, false, false, (60, 0)),
        (&[(Web, SYN | 0xc0)], NEW, false, false, (60, 0)),
        (&[(Web, ACK)], NEW, true, false, (21_600, 0)),
        (&[(Web, SYN), (Web, ACK)], NEW, true, false, (21_600, 0)),
        (&[(Web, SYN), (Db, SYN | ACK)], ESTABLISHED, true, false, (60, 21_600)),
        (&[(Web, SYN), (Db, SYN | ACK), (Web, ACK)], ESTABLISHED, true, false, (21_600, 21_600)),
        (&[(Web, SYN), (Db, SYN | ACK), (Web, ACK | PSH), (Web, ACK)], ESTABLISHED, true, false, (21_600, 21_600)),
        // The other side opens as well: its stack knows what to do with that, and the entry stays as it is.
        (&[(Web, SYN), (Db, SYN)], NEW, false, false, (60, 0)),
        (&[(Web, SYN), (Db, FIN | ACK)], CLOSING, true, false, (60, 21_600)),
        (&[(Web, SYN), (Db, SYN | ACK), (Web, FIN | ACK)], CLOSING, true, false, (21_600, 21_600)),
        (&[(Web, SYN), (Db, SYN | ACK), (Web, FIN | ACK), (Web, FIN | ACK)], CLOSING, true, false, (21_600, 21_600)),
        (&[(Web, SYN), (Db, SYN | ACK), (Web, FIN | ACK), (Db, ACK)], CLOSING, true, false, (21_600, 21_600)),
        (&[(Web, SYN), (Db, SYN | ACK), (Web, FIN | ACK), (Db, FIN | ACK)], CLOSED, true, false, (10, 10)),
        (&[(Web, SYN), (Db, SYN | ACK), (Web, FIN | ACK), (Db, FIN | ACK), (Web, ACK)], CLOSED, true, false, (10, 10)),
        (&[(Web, SYN), (Db, RST | ACK)], CLOSED, true, true, (10, 10)),
        (&[(Web, SYN), (Db, SYN | ACK), (Web, RST)], CLOSED, true, true, (10, 10)),
    ];
    in_both_families(|scene| {
        for (packets, state, more, reset, seconds) in &cases {
            scene.begin_anew();
            for (from, flags) in *packets {
                let (to, said) = if *from == Web { (Db, to_db(*flags)) } else { (Web, from_db(*flags)) };
                assert_eq!(scene.send(*from, to, &said), Passed, "{packets:?}");
            }
            let entry = entry(scene);
            let flags = u16::from(*more) * CtEntry::SEEN_NON_SYN + u16::from(*reset) * CtEntry::RST;
            assert_eq!((entry.state, entry.flags), (*state, flags), "{packets:?}");
            let left = (scene.seconds_left(entry.dir[0].expires), scene.seconds_left(entry.dir[1].expires));
            assert_eq!(left, *seconds, "{packets:?}");
        }
        // What is not TCP has one lifetime.
        scene.begin_anew();
        scene.send(Web, Db, &udp(40_000, 80));
        let (entry, _) = scene.entry((Web, 40_000), (Db, 80), UDP).expect("the connection");
        assert_eq!(scene.seconds_left(entry.dir[0].expires), 45);
    });
}

#[test]
fn what_still_comes_after_the_end_does_not_keep_the_connection() {
    in_both_families(|scene| {
        for closing in [&[(Web, RST)][..], &[(Web, FIN | ACK), (Db, FIN | ACK)]] {
            scene.begin_anew();
            let late = [(Db, ACK), (Web, ACK), (Db, RST | ACK), (Db, FIN | ACK)];
            for (number, (from, flags)) in [(Web, SYN), (Db, SYN | ACK)].iter().chain(closing).chain(&late).enumerate()
            {
                if number == 2 + closing.len() {
                    scene.let_claims_end_in(5);
                }
                let (to, said) = if *from == Web { (Db, to_db(*flags)) } else { (Web, from_db(*flags)) };
                assert_eq!(scene.send(*from, to, &said), Passed);
            }
            let left = entry(scene).dir.map(|dir| scene.seconds_left(dir.expires));
            assert_eq!(left, [5, 5]);
        }
    });
}

#[test]
fn a_new_syn_after_the_end_begins_a_new_connection_from_either_side() {
    in_both_families(|scene| {
        for closing in [&[(Web, RST)][..], &[(Web, FIN | ACK), (Db, FIN | ACK)]] {
            for again in [Web, Db] {
                scene.begin_anew();
                for (from, flags) in [(Web, SYN), (Db, SYN | ACK)].iter().chain(closing) {
                    let (to, said) = if *from == Web { (Db, to_db(*flags)) } else { (Web, from_db(*flags)) };
                    assert_eq!(scene.send(*from, to, &said), Passed);
                }
                let (to, said) = if again == Web { (Db, to_db(SYN)) } else { (Web, from_db(SYN)) };
                assert_eq!(scene.send(again, to, &said), Passed);
                let entry = entry(scene);
                let side = usize::from(again == Db);
                assert_eq!((entry.state, entry.flags, usize::from(entry.opener)), (NEW, 0, side));
                assert_eq!((entry.dir[side].packets(), entry.dir[1 - side].packets()), (1, 0));
                assert_eq!((entry.dir[side].tcp_flags, entry.dir[1 - side].tcp_flags), (SYN, 0));
            }
        }
    });
}

/// The other side's end was seen, the opener's never: it is gone, and comes again by the same port.
#[test]
fn a_new_syn_of_an_opener_that_was_left_alone_begins_a_new_connection() {
    in_both_families(|scene| {
        let left_alone = [(Web, SYN), (Db, SYN | ACK), (Web, ACK), (Db, FIN | ACK)];
        for (from, flags) in left_alone {
            let (to, said) = if from == Web { (Db, to_db(flags)) } else { (Web, from_db(flags)) };
            assert_eq!(scene.send(from, to, &said), Passed);
        }
        assert_eq!(scene.send(Db, Web, &from_db(SYN)), Passed, "the other side's begins none");
        let before = entry(scene);
        assert_eq!((before.state, before.opener), (CLOSING, 0));
        assert_eq!(scene.send(Web, Db, &to_db(SYN)), Passed);
        let after = entry(scene);
        assert_eq!((after.state, after.dir[0].tcp_flags, after.dir[1].tcp_flags), (NEW, SYN, 0));
        assert_eq!(scene.send(Db, Web, &from_db(SYN | ACK)), Passed);
        assert_eq!(scene.send(Web, Db, &to_db(FIN | ACK)), Passed);
        assert_eq!(entry(scene).state, CLOSING, "its own end alone ends it half");
    });
}

#[test]
fn a_syn_from_the_other_side_is_judged_as_an_opening() {
    in_both_families(|scene| {
        only_to_80(scene);
        assert_eq!(scene.send(Web, Db, &to_db(SYN)), Passed);
        assert_eq!(scene.send(Db, Web, &from_db(SYN)), Dropped(NO_POLICY_MATCHED, Egress), "an answer is no SYN");
        assert_eq!(scene.send(Db, Web, &from_db(SYN | ACK)), Passed);
        assert_eq!(scene.send(Db, Web, &from_db(SYN)), Dropped(NO_POLICY_MATCHED, Egress));
        assert_eq!(scene.send(Db, Web, &from_db(RST)), Passed);
        assert_eq!(scene.send(Db, Web, &from_db(SYN)), Dropped(NO_POLICY_MATCHED, Egress), "nor after the end");
        assert_eq!(entry(scene).state, CLOSED);
    });
}

#[test]
fn only_flags_that_go_together_pass() {
    in_both_families(|scene| {
        let valid = [SYN, SYN | ACK, ACK, FIN | ACK, RST, RST | ACK];
        for flags in 0..=255 {
            scene.begin_anew();
            let expected = if valid.contains(&(flags & 0x17)) { Passed } else { Dropped(INVALID, Egress) };
            assert_eq!(scene.send(Web, Db, &to_db(flags)), expected, "{flags:#x}");
            // Nor do they pass where everything else is as it should be.
            scene.send(Web, Db, &to_db(ACK));
            assert_eq!(scene.send(Web, Db, &to_db(flags)), expected, "{flags:#x} in a connection");
        }
    });
}

#[test]
fn transport_headers_have_to_be_whole() {
    in_both_families(|scene| {
        let family = scene.family;
        let least = [(tcp(1, 2, SYN), 20), (udp(1, 2), 8), (sctp(1, 2), 12), (echo(family, 1), 8)];
        for (said, least) in least {
            for length in 0..=least {
                let cut = Said { upper: said.upper[..length].to_vec(), ..said.clone() };
                let expected = if length < least { Dropped(INVALID, Egress) } else { Passed };
                assert_eq!(scene.send(Web, Db, &cut), expected, "{length} bytes of protocol {}", said.protocol);
                // What follows the packet in the frame is not the packet.
                let mut padded = scene.datagram(scene.address(Web), scene.address(Db), &cut);
                padded.extend([0; 40]);
                assert_eq!(scene.send_datagram(Web, Db, &padded), expected, "{length} bytes and padding");
            }
        }
        let mut short = to_db(SYN);
        short.upper[12] = 0x40;
        assert_eq!(scene.send(Web, Db, &short), Dropped(INVALID, Egress), "a header of 16 bytes, it says");
        // Protocols without ports may be empty.
        assert_eq!(scene.send(Web, Db, &Said { protocol: 47, upper: Vec::new() }), Passed);
    });
}

#[test]
fn wrong_checksums_are_the_receivers_affair() {
    in_both_families(|scene| {
        for said in [to_db(SYN), udp(5000, 53)] {
            let mut wrong = said.clone();
            wrong.upper[7] ^= 0xff;
            wrong.upper.last_mut().into_iter().for_each(|byte| *byte ^= 0xff);
            assert_eq!(scene.send(Web, Db, &wrong), Passed);
        }
    });
}

#[test]
fn both_sides_may_ask_with_the_same_identifier() {
    in_both_families(|scene| {
        let family = scene.family;
        assert_eq!(scene.send(Web, Db, &echo(family, 7)), Passed);
        assert_eq!(scene.connections(), 1);
        assert_eq!(scene.send(Db, Web, &echo(family, 7)), Passed);
        assert_eq!(scene.connections(), 2, "who asks is part of it");
        assert_eq!(scene.send(Web, Db, &echo(family, 8)), Passed);
        assert_eq!(scene.connections(), 3);
        // Answers pass without a policy, but only to who asked.
        let (protocol, request) = if family == V4 { (1, 8) } else { (58, 128) };
        scene.policy(Db, &[allow(Ingress, WEB, Some(protocol), request)]);
        scene.policy(Web, &[allow(Egress, DB, Some(protocol), request)]);
        assert_eq!(scene.send(Db, Web, &echo_reply(family, 7)), Passed);
        assert_eq!(scene.send(Web, Db, &echo_reply(family, 7)), Dropped(NO_POLICY_MATCHED, Egress));
        assert_eq!(scene.send(Db, Web, &echo_reply(family, 9)), Dropped(NO_POLICY_MATCHED, Egress));
        assert_eq!(scene.connections(), 3, "an answer makes no entry");
    });
}

#[test]
fn icmp_that_is_no_echo_makes_no_entry() {
    in_both_families(|scene| {
        let kinds: &[u8] = if scene.family == V4 { &[0, 3, 5, 11, 12, 13, 200] } else { &[1, 2, 3, 4, 129, 130, 200] };
        for kind in kinds {
            assert_eq!(scene.send(Web, Db, &icmp(scene.family, *kind, 7, &[0; 40])), Passed, "type {kind}");
        }
        assert_eq!(scene.connections(), 0);
    });
}

/// The bytes of a packet as an error bears it.
fn inner(scene: &Scene, from: Who, to: Who, said: &Said) -> Vec<u8> {
    scene.datagram(scene.address(from), scene.address(to), said)
}

#[test]
fn errors_pass_with_the_connection_that_they_are_about() {
    in_both_families(|scene| {
        let family = scene.family;
        let errors: &[u8] = if family == V4 { &[3, 11, 12] } else { &[1, 2, 3, 4] };
        // Web may ask Db, and nothing else may be; a router outside may say nothing to anybody.
        scene.policy(Web, &[allow(Egress, DB, None, 0)]);
        scene.policy(Db, &[allow(Ingress, WEB, None, 0)]);
        let asked = [to_db(SYN), udp(40_000, 53), sctp(1, 2), echo(family, 3), plain(47)];
        for said in &asked {
            assert_eq!(scene.send(Web, Db, said), Passed);
        }
        for said in &asked {
            for kind in errors {
                let about = icmp(family, *kind, 0, &inner(scene, Web, Db, said));
                // From the far end, from a router, from the host.
                for from in [Db, Outside, Host] {
                    assert_eq!(scene.send(from, Web, &about), Passed, "{kind} about {said:?} from {from:?}");
                }
                // A pod is no router: who may not speak to Web may not do it by an error about what another received.
                let strange = scene.send(Cache, Web, &about);
                assert_eq!(strange, Dropped(NO_POLICY_MATCHED, Ingress), "{kind} about {said:?}");
            }
        }
        // What carries an answer that could not be delivered goes the other way.
        let about = icmp(family, errors[0], 0, &inner(scene, Db, Web, &from_db(SYN | ACK)));
        assert_eq!(scene.send(Web, Db, &about), Passed);
        assert_eq!(scene.send(Outside, Db, &about), Passed);
        assert_eq!(entry(scene).dir[0].packets(), 1, "errors are not the connection's packets");
        // Once the connection may not be, its errors may not either.
        scene.policy(Db, &[allow(Ingress, WEB, Some(TCP), 81)]);
        let about = icmp(family, errors[0], 0, &inner(scene, Web, Db, &to_db(SYN)));
        assert_eq!(scene.send(Outside, Web, &about), Dropped(NO_POLICY_MATCHED, Ingress));
        assert_eq!(scene.send(Db, Web, &about), Dropped(NO_POLICY_MATCHED, Ingress), "as Db's ingress denies it");
    });
}

#[test]
fn errors_about_nothing_known_are_ordinary_messages() {
    in_both_families(|scene| {
        let family = scene.family;
        let kind = if family == V4 { 3 } else { 1 };
        scene.policy(Web, &[allow(Egress, DB, None, 0)]);
        scene.policy(Db, &[allow(Ingress, WEB, None, 0)]);
        assert_eq!(scene.send(Web, Db, &to_db(SYN)), Passed);
        assert_eq!(scene.send(Web, Db, &echo(family, 3)), Passed);
        let known = inner(scene, Web, Db, &to_db(SYN));
        let header = if family == V4 { 20 } else { 40 };
        let fragment = {
            let mut later = known.clone();
            if family == V4 {
                later[7] = 1;
            } else {
                later[6] = 44;
            }
            later
        };
        let other_version = [&[if family == V4 { 0x65 } else { 0x45 }], &known[1..]].concat();
        let mut cases = vec![
            ("no bytes", Vec::new()),
            ("half a header", known[..header / 2].to_vec()),
            ("no ports", known[..header].to_vec()),
            ("seven bytes of transport", known[..header + 7].to_vec()),
            ("another port", inner(scene, Web, Db, &tcp(40_001, 80, SYN))),
            ("another protocol", inner(scene, Web, Db, &udp(40_000, 80))),
            ("not what the receiver sent", inner(scene, Db, Web, &from_db(SYN))),
            ("of somebody else", inner(scene, Cache, Db, &to_db(SYN))),
            ("a fragment behind the first", fragment),
            ("another version", other_version),
            ("an error", inner(scene, Web, Db, &icmp(family, kind, 0, &known))),
        ];
        if family == V4 {
            cases.push(("a header of 16 bytes", [&[0x44], &known[1..]].concat()));
        }
        for (what, bytes) in cases {
            let message = icmp(family, kind, 0, &bytes);
            assert_eq!(scene.send(Outside, Web, &message), Dropped(NO_POLICY_MATCHED, Ingress), "{what}");
            assert_eq!(scene.send(Db, Web, &message), Dropped(NO_POLICY_MATCHED, Egress), "{what}");
        }
        // Eight bytes are enough, and so is a first fragment; options do not matter.
        let enough = icmp(family, kind, 0, &known[..header + 8]);
        assert_eq!(scene.send(Outside, Web, &enough), Passed);
        if family == V4 {
            let (from, to) = (scene.address(Web), scene.address(Db));
            let optioned = ipv4_datagram((from, to), 1, TCP, (9, 0x2000), &[1; 12], &to_db(SYN).upper);
            assert_eq!(scene.send(Outside, Web, &icmp(family, kind, 0, &optioned)), Passed);
        }
        if family == V6 {
            extended_packets_in_errors(scene);
        }
        // A line for the type lets them pass as it does any message.
        scene.policy(Web, &[allow(Ingress, ANYBODY, Some(if family == V4 { 1 } else { 58 }), kind.into())]);
        assert_eq!(scene.send(Outside, Web, &icmp(family, kind, 0, &[])), Passed);
    });
}

/// Errors about what Web says to Db, behind extension headers.
fn extended_packets_in_errors(scene: &mut Scene) {
    let about = |scene: &Scene, first: u8, headers: &[[u8; 8]], length: usize| {
        let mut packet = headers.concat();
        packet.extend_from_slice(&to_db(SYN).upper[..length]);
        icmp(V6, 2, 0, &ipv6_datagram((scene.address(Web), scene.address(Db)), 1, first, &packet))
    };
    let options = |next: u8| [next, 0, 1, 4, 0, 0, 0, 0];
    let routing = |kind: u8| [TCP, 0, kind, 0, 0, 0, 0, 0];
    let piece = |place: u8| [TCP, 0, 0, place, 0, 0, 0, 9];
    let eight = [[options(60); 7].as_slice(), &[options(TCP)]].concat();
    let nine = [[options(60); 8].as_slice(), &[options(TCP)]].concat();
    let known: [(&str, u8, &[[u8; 8]], usize); 6] = [
        ("the first fragment", 44, &[piece(1)], 8),
        ("a fragment that is the whole", 44, &[piece(0)], 8),
        ("options", 60, &[options(TCP)], 8),
        ("a route", 43, &[routing(4)], 8),
        ("several", 0, &[options(60), options(44), piece(1)], 8),
        ("as many as a packet may bear", 60, &eight, 20),
    ];
    for (what, first, headers, length) in known {
        let message = about(scene, first, headers, length);
        assert_eq!(scene.send(Outside, Web, &message), Passed, "{what}");
    }
    let unknown: [(&str, u8, &[[u8; 8]], usize); 6] = [
        ("a later fragment", 44, &[piece(9)], 8),
        ("seven bytes behind options", 60, &[options(TCP)], 7),
        ("nothing behind options", 60, &[options(TCP)], 0),
        ("a forbidden route", 43, &[routing(0)], 8),
        ("hop-by-hop options that do not come first", 60, &[options(0), options(TCP)], 8),
        ("one more than a packet may bear", 60, &nine, 20),
    ];
    for (what, first, headers, length) in unknown {
        let message = about(scene, first, headers, length);
        assert_eq!(scene.send(Outside, Web, &message), Dropped(NO_POLICY_MATCHED, Ingress), "{what}");
    }
}

#[test]
fn the_time_to_live_is_looked_at_after_policy() {
    in_both_families(|scene| {
        let hops = |scene: &Scene, hops: u8| {
            let addresses = (scene.address(Web), scene.address(Db));
            match scene.family {
                V4 => ipv4_datagram(addresses, hops, TCP, (1, 0), &[], &to_db(SYN).upper),
                V6 => ipv6_datagram(addresses, hops, TCP, &to_db(SYN).upper),
            }
        };
        for left in [0, 1] {
            scene.begin_anew();
            let datagram = hops(scene, left);
            assert_eq!(scene.send_datagram(Web, Db, &datagram), Expired);
            assert_eq!(scene.connections(), 1, "the host's answer finds its connection");
            let kind = if scene.family == V4 { 11 } else { 3 };
            scene.policy(Web, &[allow(Egress, ANYBODY, None, 0)]);
            assert_eq!(scene.send(Host, Web, &icmp(scene.family, kind, 0, &datagram)), Passed);
            only_to_80(scene);
            scene.policy(Db, &[]);
            assert_eq!(scene.send_datagram(Web, Db, &datagram), Dropped(NO_POLICY_MATCHED, Ingress));
        }
        scene.begin_anew();
        let datagram = hops(scene, 2);
        assert_eq!(scene.send_datagram(Web, Db, &datagram), Passed);
    });
}

#[test]
fn what_is_remembered_of_a_connection_serves_nobody_else() {
    in_both_families(|scene| {
        // Both directions are established: their packets take the short way.
        for _ in 0..2 {
            assert_eq!(scene.send(Outside, Web, &udp(53, 5000)), Passed);
            assert_eq!(scene.send(Host, Web, &udp(53, 5001)), Passed);
            assert_eq!(scene.send(Web, Db, &udp(5000, 53)), Passed);
        }
        let (web, db, cache) = (*scene.pod(Web), *scene.pod(Db), *scene.pod(Cache));
        let ethertype = if scene.family == V4 { TYPE_IPV4 } else { TYPE_IPV6 };
        let datagram = |scene: &Scene, from, said: &Said| {
            let to = if from == Web { Db } else { Web };
            scene.datagram(scene.address(from), scene.address(to), said)
        };
        let from_web = datagram(scene, Web, &udp(5000, 53));
        let from_host = datagram(scene, Host, &udp(53, 5001));
        let from_outside = datagram(scene, Outside, &udp(53, 5000));
        let nobody = [0; 6];
        let from_container = datapath::FROM_CONTAINER;
        let cases = [
            ("another pod pretends", from_container, cache, (cache.mac, cache.node_mac), &from_web, INVALID_SOURCE),
            ("with its address", from_container, cache, (web.mac, cache.node_mac), &from_web, INVALID_MAC),
            ("the pod changes its address", from_container, web, (cache.mac, web.node_mac), &from_web, INVALID_MAC),
            ("it pretends to be the host", from_container, web, (web.mac, web.node_mac), &from_host, INVALID_SOURCE),
            ("with no address", from_container, web, (nobody, web.node_mac), &from_host, INVALID_MAC),
            ("it pretends to be the world", from_container, web, (nobody, web.node_mac), &from_outside, INVALID_MAC),
            ("out to who sent it", datapath::TO_CONTAINER, web, (nobody, web.mac), &from_web, UNROUTABLE),
            ("to another", datapath::TO_CONTAINER, cache, (nobody, cache.mac), &from_web, UNROUTABLE),
        ];
        for (what, program, pod, macs, datagram, reason) in cases {
            let direction = if program == datapath::FROM_CONTAINER { Egress } else { Ingress };
            let frame = frame(macs.0, macs.1, ethertype, datagram);
            assert_eq!(scene.meet(program, pod.ifindex, &frame), Dropped(reason, direction), "{what}");
        }
        // From the network nobody speaks for a pod.
        let frame = frame(datapath::NEIGHBOUR_MAC, datapath::DEVICE_MAC, ethertype, &from_web);
        assert_eq!(scene.meet(datapath::FROM_NETDEV, rig::NETDEV, &frame), Dropped(INVALID_SOURCE, Ingress));
        assert_ne!(db.mac, web.mac);
    });
}
