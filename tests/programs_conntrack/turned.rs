//! Connections whose opener may no longer, and what the other side sends then.

use super::*;

const BY_RULE: u8 = 181;

/// Web may no longer open anything to Db, and Db still may to Web.
fn no_more_from_web(scene: &mut Scene) {
    let rest = [allow(Ingress, ANYBODY, None, 0), allow(Egress, ANYBODY, None, 0)];
    scene.policy(Db, &[&[deny(Ingress, WEB, None, 0)], &rest[..]].concat());
}

/// Whose policies were asked about the latest packet, in which direction, with which verdict, and what it was to them.
fn asked(scene: &Scene) -> Vec<(u16, u8, i32, u8)> {
    let reported = scene.reported.iter();
    reported.map(|notify| (notify.source, notify.flags & 3, notify.verdict, notify.raised_by)).collect()
}

#[test]
fn who_may_send_goes_on_alone_when_the_opener_may_no_longer() {
    let ports = |said: &Said| if said.protocol == 47 { (0, 0) } else { (7946, 7947) };
    let both_ways = [(udp(7946, 7947), udp(7947, 7946)), (sctp(7946, 7947), sctp(7947, 7946)), (plain(47), plain(47))];
    in_both_families(|scene| {
        for (of_web, of_db) in &both_ways {
            scene.begin_anew();
            let (web, db) = ports(of_web);
            let entry = |scene: &Scene| scene.entry((Web, web), (Db, db), of_web.protocol).expect("the connection").0;
            assert_eq!(scene.send(Web, Db, of_web), Passed);
            assert_eq!(scene.send(Db, Web, of_db), Passed);
            no_more_from_web(scene);
            assert_eq!(scene.send(Web, Db, of_web), Dropped(BY_RULE, Ingress), "the next packet");
            scene.let_claims_end_in(5);
            for count in [2, 3] {
                assert_eq!(scene.send(Db, Web, of_db), Passed, "which old and new policy allow");
                assert_eq!(asked(scene), [(1002, 2, 0, 0), (1001, 1, 0, 0)], "as one that opens");
                let still = entry(scene);
                assert_eq!((still.opener, still.dir.map(|dir| dir.packets())), (0, [1, count]), "it is Web's");
                assert_eq!(still.dir.map(|dir| scene.seconds_left(dir.expires)), [5, 5], "and not for longer");
                assert_eq!(scene.send(Web, Db, of_web), Dropped(BY_RULE, Ingress), "no answer gives it back");
            }
            scene.let_all_die();
            assert_eq!(scene.send(Db, Web, of_db), Passed);
            let turned = entry(scene);
            assert_eq!((turned.opener, turned.state), (1, NEW));
            assert_eq!((turned.src_label, turned.dst_label), (DB, WEB));
            assert_eq!(turned.dir.map(|dir| dir.packets()), [0, 1], "it begins anew");
            // Sealed as any other, and answered.
            assert_eq!(scene.send(Db, Web, of_db), Passed);
            assert_eq!(scene.send(Web, Db, of_web), Passed, "an answer");
            assert_eq!(scene.send(Web, Db, of_web), Passed);
            assert_eq!((entry(scene).opener, entry(scene).state), (1, ESTABLISHED));
            assert_eq!(entry(scene).dir.map(|dir| dir.packets()), [2, 2]);
            assert_eq!(scene.connections(), 1);
            // What Web opens is denied as before; and the answers, as soon as Db may not send either.
            assert_eq!(scene.send(Web, Db, &udp(1, 2)), Dropped(BY_RULE, Ingress));
            scene.policy(Web, &[allow(Egress, ANYBODY, None, 0)]);
            assert_eq!(scene.send(Db, Web, of_db), Dropped(NO_POLICY_MATCHED, Ingress));
            assert_eq!(scene.send(Web, Db, of_web), Dropped(BY_RULE, Ingress));
        }
    });
}

#[test]
fn what_neither_side_may_is_told_once_and_in_the_packet_s_direction() {
    in_both_families(|scene| {
        assert_eq!(scene.send(Web, Db, &udp(40_000, 53)), Passed);
        assert_eq!(scene.send(Db, Web, &udp(53, 40_000)), Passed);
        scene.policy(Db, &[]);
        let before = scene.entry((Web, 40_000), (Db, 53), UDP);
        assert_eq!(scene.send(Db, Web, &udp(53, 40_000)), Dropped(NO_POLICY_MATCHED, Egress));
        assert_eq!(asked(scene), [(1002, 2, -133, 0)]);
        assert_eq!(scene.send(Web, Db, &udp(40_000, 53)), Dropped(NO_POLICY_MATCHED, Ingress));
        assert_eq!(scene.entry((Web, 40_000), (Db, 53), UDP), before, "what is denied changes nothing");
        // As long as the opener may, an answer needs no policy.
        scene.policy(Db, &[allow(Ingress, WEB, None, 0)]);
        assert_eq!(scene.send(Db, Web, &udp(53, 40_000)), Passed);
        assert_eq!(asked(scene), [(1001, 2, 0, 1), (1002, 1, 0, 1)]);
    });
}

#[test]
fn a_denied_tcp_connection_stays_denied_until_the_other_side_opens_one() {
    in_both_families(|scene| {
        for flags in [SYN, SYN | ACK, ACK] {
            scene.begin_anew();
            for (from, flags) in [(Web, SYN), (Db, SYN | ACK), (Web, ACK)] {
                let (to, said) = if from == Web { (Db, to_db(flags)) } else { (Web, from_db(flags)) };
                assert_eq!(scene.send(from, to, &said), Passed);
            }
            no_more_from_web(scene);
            let before = entry(scene);
            for late in [ACK, ACK | PSH, SYN | ACK, FIN | ACK, RST] {
                assert_eq!(scene.send(Db, Web, &from_db(late)), Dropped(BY_RULE, Ingress), "{late:#x}");
                assert_eq!(asked(scene), [(1001, 2, 0, 1), (1002, 1, -181, 1)], "for the opener's sake");
            }
            assert_eq!(scene.send(Web, Db, &to_db(flags)), Dropped(BY_RULE, Ingress), "{flags:#x}");
            assert_eq!(entry(scene), before);
            assert_eq!(scene.send(Db, Web, &from_db(SYN)), Passed);
            let turned = entry(scene);
            assert_eq!((turned.opener, turned.state, turned.flags), (1, NEW, 0));
            assert_eq!(turned.dir.map(|dir| (dir.packets(), dir.tcp_flags)), [(0, 0), (1, SYN)]);
            // Web answers, and may not open.
            assert_eq!(scene.send(Web, Db, &to_db(SYN)), Dropped(BY_RULE, Ingress));
            assert_eq!(scene.send(Web, Db, &to_db(SYN | ACK)), Passed);
            assert_eq!(scene.send(Db, Web, &from_db(ACK)), Passed);
            assert_eq!((entry(scene).opener, entry(scene).state), (1, ESTABLISHED));
        }
    });
}

#[test]
fn a_reply_to_a_denied_request_is_a_message_of_its_own() {
    in_both_families(|scene| {
        let family = scene.family;
        assert_eq!(scene.send(Web, Db, &echo(family, 7)), Passed);
        no_more_from_web(scene);
        assert_eq!(scene.send(Db, Web, &echo_reply(family, 7)), Passed, "Db may send what it likes");
        assert_eq!(scene.send(Web, Db, &echo(family, 7)), Dropped(BY_RULE, Ingress), "and that opened nothing");
        scene.policy(Db, &[]);
        assert_eq!(scene.send(Db, Web, &echo_reply(family, 7)), Dropped(NO_POLICY_MATCHED, Egress));
        assert_eq!(asked(scene), [(1002, 2, -133, 0)]);
    });
}
