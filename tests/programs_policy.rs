//! What policies make of packets, sentence by sentence. Needs root.

#[path = "common/programs.rs"]
mod programs;

use std::net::SocketAddr;

use programs::model::{Entry, PortPrefix};
use programs::packets::UDP;
use programs::scene::*;

const NO_POLICY_MATCHED: u8 = 133;
const DENIED_BY_RULE: u8 = 181;
const NOT_READY: u8 = 203;

#[test]
fn an_endpoint_without_a_policy_neither_sends_nor_receives() {
    in_both_families(|scene| {
        // An id without a slot.
        scene.change(|world| world.endpoints[Db as usize].id = 3000);
        assert_eq!(scene.send(Db, Outside, &udp(5000, 53)), Dropped(NOT_READY, Egress));
        assert_eq!(scene.send(Outside, Db, &udp(5000, 53)), Dropped(NOT_READY, Ingress));
        assert_eq!(scene.send(Host, Db, &udp(5000, 53)), Dropped(NOT_READY, Ingress));
        assert_eq!(scene.send(Web, Db, &udp(5000, 53)), Dropped(NOT_READY, Ingress));
        // The others are not concerned.
        assert_eq!(scene.send(Web, Outside, &udp(5000, 53)), Passed);
    });
}

#[test]
fn a_policy_without_lines_lets_nothing_pass_and_egress_is_asked_first() {
    in_both_families(|scene| {
        scene.policy(Web, &[]);
        assert_eq!(scene.send(Web, Db, &tcp(40_000, 80, SYN)), Dropped(NO_POLICY_MATCHED, Egress));
        assert_eq!(scene.send(Db, Web, &tcp(40_000, 80, SYN)), Dropped(NO_POLICY_MATCHED, Ingress));
        scene.policy(Db, &[]);
        assert_eq!(scene.send(Db, Web, &tcp(40_000, 80, SYN)), Dropped(NO_POLICY_MATCHED, Egress));
        assert_eq!(scene.connections(), 0, "what is denied leaves no entry");
    });
}

#[test]
fn a_line_names_peer_protocol_and_port() {
    let cases: [(Entry, &[Said], &[Said]); 8] = [
        // Everything from the peer.
        (allow(Ingress, WEB, None, 0), &[tcp(1, 80, SYN), udp(1, 53), plain(47)], &[]),
        // A protocol.
        (allow(Ingress, WEB, Some(TCP), 0), &[tcp(1, 80, SYN), tcp(1, 443, SYN)], &[udp(1, 80), plain(47)]),
        (allow(Ingress, WEB, Some(47), 0), &[plain(47)], &[plain(50), udp(1, 47)]),
        // A port.
        (allow(Ingress, WEB, Some(TCP), 80), &[tcp(1, 80, SYN)], &[tcp(80, 81, SYN), udp(1, 80)]),
        (allow(Ingress, WEB, Some(UDP), 53), &[udp(1, 53)], &[udp(53, 54), tcp(1, 53, SYN)]),
        (allow(Ingress, WEB, Some(SCTP), 38_412), &[sctp(1, 38_412)], &[sctp(38_412, 1)]),
        // Whoever it is from.
        (allow(Ingress, ANYBODY, Some(TCP), 80), &[tcp(1, 80, SYN)], &[tcp(1, 81, SYN)]),
        // Somebody else.
        (allow(Ingress, CACHE, None, 0), &[], &[tcp(1, 80, SYN), plain(47)]),
    ];
    in_both_families(|scene| {
        for (line, passes, does_not) in &cases {
            scene.begin_anew();
            scene.policy(Db, &lets_in(&[*line]));
            for said in *passes {
                assert_eq!(scene.send(Web, Db, said), Passed, "{line:?} {said:?}");
            }
            for said in *does_not {
                assert_eq!(scene.send(Web, Db, said), Dropped(NO_POLICY_MATCHED, Ingress), "{line:?} {said:?}");
            }
        }
    });
}

#[test]
fn ports_that_share_their_first_bits_are_one_line() {
    in_both_families(|scene| {
        // 8080 to 8087
        let range = PortPrefix { port: 8080, bits: 13 };
        let line = Entry { ports: range, ..allow(Egress, ANYBODY, Some(TCP), 1) };
        scene.policy(Web, &lets_out(&[line]));
        for (port, result) in [(8079, false), (8080, true), (8083, true), (8087, true), (8088, false)] {
            let expected = if result { Passed } else { Dropped(NO_POLICY_MATCHED, Egress) };
            assert_eq!(scene.send(Web, Outside, &tcp(40_000, port, SYN)), expected, "{port}");
        }
    });
}

#[test]
fn the_type_stands_for_the_port_of_icmp() {
    in_both_families(|scene| {
        let family = scene.family;
        let (protocol, request, other) = if family == V4 { (1, 8, 13) } else { (58, 128, 130) };
        scene.policy(Db, &lets_in(&[allow(Ingress, WEB, Some(protocol), request)]));
        assert_eq!(scene.send(Web, Db, &echo(family, 7)), Passed);
        assert_eq!(scene.send(Web, Db, &icmp(family, other as u8, 7, &[])), Dropped(NO_POLICY_MATCHED, Ingress));
        // The other family's protocol number is just a protocol without ports.
        let others = if family == V4 { 58 } else { 1 };
        scene.policy(Db, &lets_in(&[allow(Ingress, WEB, Some(others), 0)]));
        let message = Said { protocol: others, ..echo(family, 7) };
        assert_eq!(scene.send(Web, Db, &message), Passed);
        scene.policy(Db, &lets_in(&[allow(Ingress, WEB, Some(others), 8)]));
        assert_eq!(scene.send(Web, Db, &message), Dropped(NO_POLICY_MATCHED, Ingress));
    });
}

#[test]
fn of_two_lines_the_stronger_decides() {
    let ordinary = |entry: Entry, precedence| Entry { precedence, ..entry };
    let to_80 = |identity| allow(Ingress, identity, Some(TCP), 80);
    let never_80 = |identity| deny(Ingress, identity, Some(TCP), 80);
    let denied = Dropped(DENIED_BY_RULE, Ingress);
    let cases = [
        ("higher precedence, for anybody", ordinary(to_80(WEB), 5), ordinary(never_80(ANYBODY), 6), denied),
        ("higher precedence, for the peer", ordinary(to_80(WEB), 6), ordinary(never_80(ANYBODY), 5), Passed),
        ("a denying line that is weaker", ordinary(never_80(WEB), 5), ordinary(to_80(ANYBODY), 6), Passed),
        ("equal: deny, for anybody", ordinary(to_80(WEB), 5), ordinary(never_80(ANYBODY), 5), denied),
        ("equal: deny, for the peer", ordinary(never_80(WEB), 5), ordinary(to_80(ANYBODY), 5), denied),
        // As the compiler writes them.
        ("deny for anybody", to_80(WEB), deny(Ingress, ANYBODY, None, 0), denied),
        ("deny for the peer", deny(Ingress, WEB, None, 0), to_80(ANYBODY), denied),
        // For one identity the longest prefix decides, whatever the precedence.
        ("port beats protocol", to_80(WEB), deny(Ingress, WEB, Some(TCP), 0), Passed),
        ("protocol beats all", allow(Ingress, WEB, Some(TCP), 0), deny(Ingress, WEB, None, 0), Passed),
    ];
    in_both_families(|scene| {
        for (what, one, other, result) in &cases {
            scene.begin_anew();
            scene.policy(Db, &lets_in(&[*one, *other]));
            assert_eq!(scene.send(Web, Db, &tcp(40_000, 80, SYN)), *result, "{what}");
        }
    });
}

#[test]
fn a_line_for_a_proxy_lets_pass_as_long_as_there_is_no_proxy() {
    in_both_families(|scene| {
        let line = Entry { proxy_port: 10_001, ..allow(Ingress, WEB, Some(TCP), 80) };
        scene.policy(Db, &lets_in(&[line]));
        assert_eq!(scene.send(Web, Db, &tcp(40_000, 80, SYN)), Passed);
    });
}

#[test]
fn who_an_address_is() {
    in_both_families(|scene| {
        let only = |identity| lets_in(&[allow(Ingress, identity, None, 0)]);
        let world = if scene.family == V4 { 9 } else { 10 };
        let prefix = |v4: &str, v6: &str, family| if family == V4 { v4.parse() } else { v6.parse() };
        let wide = prefix("192.0.2.0/24", "2001:db8::/32", scene.family).expect("a prefix");
        let narrow = prefix("192.0.2.7/32", "2001:db8::7/128", scene.family).expect("a prefix");
        let pods = prefix("10.0.0.0/24", "fd00::/112", scene.family).expect("a prefix");

        // Of an address outside nothing is known but that.
        scene.policy(Db, &only(world));
        assert_eq!(scene.send(Outside, Db, &udp(1, 2)), Passed);
        // The longest prefix that is known tells.
        scene.change(|world| {
            world.ipcache.insert(wide, 70_000);
        });
        assert_eq!(scene.send(Outside, Db, &udp(3, 4)), Dropped(NO_POLICY_MATCHED, Ingress));
        scene.policy(Db, &only(70_000));
        assert_eq!(scene.send(Outside, Db, &udp(3, 4)), Passed);
        scene.change(|world| {
            world.ipcache.insert(narrow, 70_001);
        });
        assert_eq!(scene.send(Outside, Db, &udp(5, 6)), Dropped(NO_POLICY_MATCHED, Ingress));
        scene.policy(Db, &only(70_001));
        assert_eq!(scene.send(Outside, Db, &udp(5, 6)), Passed);
        // Prefixes tell nothing of the node's own addresses.
        scene.change(|world| {
            world.ipcache.insert(pods, 70_002);
        });
        scene.policy(Db, &only(WEB));
        assert_eq!(scene.send(Web, Db, &udp(7, 8)), Passed);
        assert_eq!(scene.send(Host, Db, &udp(7, 8)), Dropped(NO_POLICY_MATCHED, Ingress));
        scene.policy(Db, &only(1));
        assert_eq!(scene.send(Host, Db, &udp(9, 10)), Passed);
        assert_eq!(scene.send(Web, Db, &udp(9, 10)), Dropped(NO_POLICY_MATCHED, Ingress));
    });
}

#[test]
fn what_a_pod_sends_to_the_host_and_to_the_world_is_judged_too() {
    in_both_families(|scene| {
        let world = if scene.family == V4 { 9 } else { 10 };
        scene.policy(Web, &lets_out(&[allow(Egress, 1, None, 0)]));
        assert_eq!(scene.send(Web, Host, &udp(1, 53)), Passed);
        assert_eq!(scene.send(Web, Outside, &udp(1, 53)), Dropped(NO_POLICY_MATCHED, Egress));
        scene.policy(Web, &lets_out(&[allow(Egress, world, None, 0)]));
        assert_eq!(scene.send(Web, Host, &udp(2, 53)), Dropped(NO_POLICY_MATCHED, Egress));
        assert_eq!(scene.send(Web, Outside, &udp(2, 53)), Passed);
    });
}

#[test]
fn what_a_pod_says_to_itself_is_its_own_affair() {
    in_both_families(|scene| {
        scene.policy(Web, &[]);
        assert_eq!(scene.send(Web, Web, &tcp(40_000, 80, SYN)), Passed);
        assert_eq!(scene.send(Web, Web, &tcp(80, 40_000, SYN | ACK)), Passed);
        assert_eq!(scene.send(Web, Web, &tcp(80, 80, SYN)), Passed);
        let family = scene.family;
        assert_eq!(scene.send(Web, Web, &echo(family, 1)), Passed);
        assert_eq!(scene.send(Web, Web, &echo_reply(family, 1)), Passed);
        assert!(scene.reported.is_empty(), "nobody judged");
    });
}

#[test]
fn audit_lets_pass_what_it_reports() {
    in_both_families(|scene| {
        scene.policy(Db, &[deny(Ingress, WEB, None, 0)]);
        scene.pod(Db).audit = true;
        scene.change(|_| {});
        assert_eq!(scene.send(Web, Db, &tcp(40_000, 80, SYN)), Passed);
        let [egress, ingress] = scene.reported[..] else { panic!("{:?}", scene.reported) };
        assert_eq!((egress.verdict, egress.flags & 0x43), (0, 0x02));
        assert_eq!((ingress.verdict, ingress.flags & 0x43, ingress.cookie), (0, 0x41, 7000));
        // What it would send is let through as well, though no line says so.
        assert_eq!(scene.send(Db, Cache, &udp(1, 2)), Passed);
        // The audit of one is not that of another.
        scene.policy(Web, &[]);
        assert_eq!(scene.send(Db, Web, &udp(1, 2)), Dropped(NO_POLICY_MATCHED, Ingress));
        // And it ends.
        scene.pod(Db).audit = false;
        scene.change(|_| {});
        assert_eq!(scene.send(Web, Db, &tcp(40_000, 80, ACK)), Dropped(NO_POLICY_MATCHED, Egress));
        assert_eq!(scene.send(Db, Cache, &udp(1, 2)), Dropped(NO_POLICY_MATCHED, Egress));
    });
}

#[test]
fn verdicts_are_reported_for_each_policy_that_was_asked() {
    // The line, and the number that says what it named.
    let lines = [
        (allow(Ingress, WEB, None, 0), 1),
        (allow(Ingress, WEB, Some(TCP), 80), 2),
        (allow(Ingress, ANYBODY, Some(TCP), 80), 3),
        (allow(Ingress, ANYBODY, None, 0), 4),
        (allow(Ingress, WEB, Some(TCP), 0), 5),
        (allow(Ingress, ANYBODY, Some(TCP), 0), 6),
        (deny(Ingress, WEB, Some(TCP), 80), 2),
        (deny(Ingress, CACHE, Some(TCP), 80), 0),
    ];
    in_both_families(|scene| {
        for (line, kind) in lines {
            scene.begin_anew();
            scene.policy(Db, &lets_in(&[line]));
            let result = scene.send(Web, Db, &tcp(40_000, 80, SYN));
            let verdict = match result {
                Passed => 0,
                Dropped(reason, _) => -i32::from(reason),
                Expired => panic!("with 64 hops"),
            };
            let [egress, ingress] = scene.reported[..] else { panic!("{:?}", scene.reported) };
            let v6 = if scene.family == V6 { 4 } else { 0 };
            let said = |notify: &podwire::abi::PolicyVerdictNotify| {
                (notify.source, notify.remote_label, notify.verdict, notify.flags, notify.dst_port, notify.proto)
            };
            // Egress: everything to anybody.
            assert_eq!(said(&egress), (1001, DB, 0, 2 | v6 | 4 << 3, 80, TCP), "{line:?}");
            assert_eq!(said(&ingress), (1002, WEB, verdict, 1 | v6 | kind << 3, 80, TCP), "{line:?}");
            assert_eq!(ingress.cookie, if kind == 0 { 0 } else { line.cookie }, "the rule's number");
        }
        // Where the sender may not send, the receiver is not asked.
        scene.policy(Web, &[]);
        scene.send(Web, Db, &udp(1, 2));
        let [only] = scene.reported[..] else { panic!("{:?}", scene.reported) };
        assert_eq!((only.source, only.verdict, only.flags & 3), (1001, -133, 2));
    });
}

/// A connection counts when a policy lets it pass, once for each generation and policy that is asked.
#[test]
fn what_policies_let_pass_is_counted_by_direction_and_audit() {
    in_both_families(|scene| {
        let mut before = scene.let_pass();
        let mut counted = |scene: &Scene| {
            let after = scene.let_pass();
            let moved = [0, 1].map(|row| [0, 1].map(|column| after[row][column] - before[row][column]));
            before = after;
            moved
        };
        let family = scene.family;
        // By one policy, by the other, by both.
        let cases = [
            ((Web, Outside), [[1, 0], [0, 0]]),
            ((Outside, Web), [[0, 0], [1, 0]]),
            ((Host, Web), [[0, 0], [1, 0]]),
            ((Web, Db), [[1, 0], [1, 0]]),
            ((Web, Web), [[0, 0], [0, 0]]),
        ];
        for ((from, to), expected) in cases {
            let (asks, answers) = (udp(1000, 53), udp(53, 1000));
            for generation in 0..2 {
                assert_eq!(scene.send(from, to, &asks), Passed);
                assert_eq!(counted(scene), expected, "{from:?} to {to:?} in generation {generation}");
                assert_eq!(scene.send(from, to, &asks), Passed);
                assert_eq!(counted(scene), [[0, 0], [0, 0]], "{from:?} to {to:?}, which is known");
                scene.change(|_| {});
            }
            assert_eq!(scene.send(to, from, &answers), Passed);
            assert_eq!(counted(scene), expected, "a reply of {to:?} to {from:?} has it judged anew");
            scene.change(|_| {});
        }
        // Without a connection each packet counts.
        for _ in 0..2 {
            assert_eq!(scene.send(Web, Db, &echo_reply(family, 7)), Passed);
            assert_eq!(counted(scene), [[1, 0], [1, 0]]);
        }
        // What is denied does not, by either side; what is only audited counts as that.
        scene.policy(Db, &[]);
        for (from, to, by) in [(Web, Db, Ingress), (Db, Web, Egress)] {
            assert_eq!(scene.send(from, to, &udp(3, 4)), Dropped(NO_POLICY_MATCHED, by));
            assert_eq!(counted(scene), [[0, 0], [0, 0]]);
        }
        scene.pod(Db).audit = true;
        scene.change(|_| {});
        assert_eq!(scene.send(Web, Db, &udp(5, 6)), Passed);
        assert_eq!(counted(scene), [[1, 0], [0, 1]]);
        assert_eq!(scene.send(Db, Web, &udp(7, 8)), Passed);
        assert_eq!(counted(scene), [[0, 1], [1, 0]]);
    });
}

/// Both verdicts on Web's connection to Db that the latest packet raised, as lines from the match on.
fn lines_of_both(scene: &Scene, raised_by: u8) -> [String; 2] {
    let said = |notify: &podwire::abi::PolicyVerdictNotify| {
        (notify.source, notify.remote_label, notify.flags & 3, notify.raised_by)
    };
    let [egress, ingress] = &scene.reported[..] else { panic!("{:?}", scene.reported) };
    assert_eq!([said(egress), said(ingress)], [(1001, DB, 2, raised_by), (1002, WEB, 1, raised_by)]);
    let [egress, ingress] = &scene.told[..] else { panic!("{:?}", scene.told) };
    [egress, ingress].map(|event| {
        let line = event.to_string();
        line.split_once("rule #").and_then(|(_, rest)| rest.split_once(", ")).expect("a rule").1.to_owned()
    })
}

#[test]
fn what_a_reply_raises_is_told_in_the_opener_s_direction() {
    in_both_families(|scene| {
        let (family, web, db) = (scene.family, scene.address(Web), scene.address(Db));
        let (client, server) = (SocketAddr::new(web, 40_000), SocketAddr::new(db, 80));
        assert_eq!(scene.send(Web, Db, &tcp(40_000, 80, SYN)), Passed);
        let line = format!("{client} -> {server} tcp SYN");
        assert_eq!(lines_of_both(scene, 0), [line.clone(), line]);
        scene.change(|_| {});
        assert_eq!(scene.send(Db, Web, &tcp(80, 40_000, SYN | ACK)), Passed);
        let line = format!("{client} -> {server} tcp SYN, ACK, raised by a reply");
        assert_eq!(lines_of_both(scene, 1), [line.clone(), line]);
        let json = serde_json::to_value(&scene.told[1]).expect("JSON");
        let (l3, l4) = (&json["summary"]["l3"], &json["summary"]["l4"]);
        assert_eq!((&json["raisedBy"], &json["direction"]), (&"reply".into(), &"ingress".into()));
        assert_eq!([&l3["src"], &l3["dst"]], [&web.to_string(), &db.to_string()]);
        assert_eq!([&l4["src"], &l4["dst"]], ["40000", "80"]);
        // The opener's own packet is not a reply, whenever it comes.
        scene.change(|_| {});
        assert_eq!(scene.send(Web, Db, &tcp(40_000, 80, ACK)), Passed);
        let line = format!("{client} -> {server} tcp ACK");
        assert_eq!(lines_of_both(scene, 0), [line.clone(), line]);
        // What is denied by now, and an echo.
        scene.policy(Db, &lets_in(&[deny(Ingress, WEB, Some(TCP), 80)]));
        assert_eq!(scene.send(Db, Web, &tcp(80, 40_000, ACK)), Dropped(DENIED_BY_RULE, Ingress));
        assert_eq!(lines_of_both(scene, 1)[1], format!("{client} -> {server} tcp ACK, raised by a reply"));
        scene.policy(Db, &everything());
        assert_eq!(scene.send(Web, Db, &echo(family, 7)), Passed);
        scene.change(|_| {});
        assert_eq!(scene.send(Db, Web, &echo_reply(family, 7)), Passed);
        let line = format!("{web} -> {db} icmp EchoReply, raised by a reply");
        assert_eq!(lines_of_both(scene, 1), [line.clone(), line]);
    });
}

#[test]
fn what_an_error_raises_is_told_of_the_connection_it_is_about() {
    in_both_families(|scene| {
        let (family, web, db, router) = (scene.family, scene.address(Web), scene.address(Db), scene.address(Outside));
        let (client, server) = (SocketAddr::new(web, 40_000), SocketAddr::new(db, 80));
        let kind = if family == V4 { 3 } else { 1 };
        let about = |packet: &[u8], bytes: usize| icmp(family, kind, 0, &packet[..packet.len().min(bytes)]);
        let asked = scene.datagram(web, db, &tcp(40_000, 80, SYN));
        let answer = scene.datagram(db, web, &tcp(80, 40_000, ACK));
        assert_eq!(scene.send(Web, Db, &tcp(40_000, 80, SYN)), Passed);
        scene.policy(Db, &lets_in(&[deny(Ingress, WEB, Some(TCP), 80)]));
        let whole = asked.len();
        // With all of it, and with no more than an error has to bear.
        for (bytes, flags) in [(whole, " SYN"), (whole - 16, "")] {
            assert_eq!(scene.send(Outside, Web, &about(&asked, bytes)), Dropped(DENIED_BY_RULE, Ingress));
            let raised = format!("raised by an error: {router} -> {web} icmp DestinationUnreachable");
            let line = format!("{client} -> {server} tcp{flags}, {raised}");
            assert_eq!(lines_of_both(scene, 2), [line.clone(), line]);
        }
        let json = serde_json::to_value(&scene.told[1]).expect("JSON");
        let of = |object: &serde_json::Value| [object["l3"]["src"].clone(), object["l3"]["dst"].clone()];
        assert_eq!((&json["raisedBy"], &json["summary"]["l4"]["dst"]), (&"error".into(), &"80".into()));
        assert_eq!(of(&json["summary"]), [web, db].map(|address| address.to_string()));
        assert_eq!(of(&json["error"]), [router, web].map(|address| address.to_string()));
        // About a reply: what it bears is turned.
        assert_eq!(scene.send(Outside, Db, &about(&answer, whole)), Dropped(DENIED_BY_RULE, Ingress));
        let raised = format!("raised by an error: {router} -> {db} icmp DestinationUnreachable");
        let line = format!("{client} -> {server} tcp ACK, {raised}");
        assert_eq!(lines_of_both(scene, 3), [line.clone(), line]);
        // About nothing known: a message of its own.
        let unknown = scene.datagram(web, db, &tcp(40_001, 80, SYN));
        assert_eq!(scene.send(Outside, Web, &about(&unknown, whole)), Passed);
        let [event] = &scene.told[..] else { panic!("{:?}", scene.told) };
        assert!(event.to_string().ends_with(&format!(", {router} -> {web} icmp DestinationUnreachable")), "{event}");
    });
}

#[test]
fn a_verdict_is_reported_once_for_a_connection_and_generation_and_for_every_packet_that_is_denied() {
    in_both_families(|scene| {
        let packets = [(Web, Db, tcp(40_000, 80, SYN)), (Db, Web, tcp(80, 40_000, SYN | ACK))];
        let ack = [(Web, Db, tcp(40_000, 80, ACK)), (Db, Web, tcp(80, 40_000, ACK))];
        let mut reports = Vec::new();
        for (from, to, said) in packets.iter().chain(&ack) {
            scene.send(*from, *to, said);
            reports.push(scene.reported.len());
        }
        scene.change(|_| {});
        for (from, to, said) in ack.iter().rev().chain(&ack) {
            scene.send(*from, *to, said);
            reports.push(scene.reported.len());
        }
        assert_eq!(reports, [2, 0, 0, 0, 2, 0, 0, 0]);
        // A SYN that is sent again opens nothing.
        for reported in [0, 2, 0] {
            assert_eq!(scene.send(Web, Db, &tcp(40_000, 80, SYN)), Passed);
            assert_eq!(scene.reported.len(), reported);
            if reported == 0 {
                scene.change(|_| {});
            }
        }
        scene.policy(Db, &lets_in(&[]));
        for (from, to, said) in &ack {
            assert_eq!(scene.send(*from, *to, said), Dropped(NO_POLICY_MATCHED, Ingress));
            assert_eq!(scene.reported.len(), 2);
        }
    });
}

#[test]
fn the_next_packet_obeys_what_changed() {
    let syn = || tcp(40_000, 80, SYN);
    let ack = || tcp(40_000, 80, ACK);
    let reply = || tcp(80, 40_000, ACK);
    in_both_families(|scene| {
        let denied = Dropped(NO_POLICY_MATCHED, Ingress);
        assert_eq!(scene.send(Web, Db, &syn()), Passed);
        assert_eq!(scene.send(Db, Web, &reply()), Passed);
        // A policy.
        scene.policy(Db, &lets_in(&[allow(Ingress, WEB, Some(TCP), 81)]));
        assert_eq!(scene.send(Web, Db, &ack()), denied);
        assert_eq!(scene.send(Db, Web, &reply()), denied, "the other direction too, for the same reason");
        scene.policy(Db, &lets_in(&[allow(Ingress, WEB, Some(TCP), 80)]));
        assert_eq!(scene.send(Db, Web, &reply()), Passed, "the entry is still there");
        assert_eq!(scene.send(Web, Db, &ack()), Passed);
        // An identity.
        scene.change(|world| world.endpoints[Web as usize].identity = 40_099);
        assert_eq!(scene.send(Web, Db, &ack()), denied);
        assert_eq!(scene.send(Db, Web, &reply()), denied);
        scene.change(|world| world.endpoints[Web as usize].identity = WEB);
        assert_eq!(scene.send(Web, Db, &ack()), Passed);
        // Where the receiver is.
        scene.change(|world| {
            let [db, cache] = world.endpoints.get_disjoint_mut([1, 2]).expect("two of three");
            std::mem::swap(&mut db.ifindex, &mut cache.ifindex);
            db.mac = [0x8a, 0, 0, 0, 9, 9];
        });
        assert_eq!(scene.send(Web, Db, &ack()), Passed);
        assert_eq!(scene.send(Db, Web, &reply()), Passed);
    });
}

#[test]
fn replies_need_no_line_but_what_opens_does() {
    in_both_families(|scene| {
        scene.policy(Web, &[allow(Egress, DB, Some(UDP), 53)]);
        scene.policy(Db, &[allow(Ingress, WEB, Some(UDP), 53)]);
        assert_eq!(scene.send(Db, Web, &udp(53, 5000)), Dropped(NO_POLICY_MATCHED, Egress), "before anybody asked");
        assert_eq!(scene.send(Web, Db, &udp(5000, 53)), Passed);
        assert_eq!(scene.send(Db, Web, &udp(53, 5000)), Passed);
        assert_eq!(scene.send(Db, Web, &udp(53, 5001)), Dropped(NO_POLICY_MATCHED, Egress), "of another port");
        assert_eq!(scene.send(Db, Web, &udp(54, 5000)), Dropped(NO_POLICY_MATCHED, Egress), "from another port");
    });
}
