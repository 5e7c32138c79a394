package subject_test

import (
	"errors"
	"fmt"

	"codeberg.org/dataverket/messaging/subject"
)

func ExampleCmd() {
	s, err := subject.Cmd(subject.Maskin, "provision")
	fmt.Println(s, err)
	_, err = subject.Cmd(subject.Maskin, "Provision")
	fmt.Println(err)
	// Output:
	// dv.maskin.cmd.provision <nil>
	// subject: action "Provision": holds an upper-case letter: use lower-case letters, digits and _, starting with a letter
}

func ExampleCmdAt() {
	fmt.Println(subject.Must(subject.CmdAt("trd1", subject.Maskin, "provision")))
	// Output: dv.xdc.trd1.maskin.cmd.provision
}

func ExampleEvt() {
	s, err := subject.Evt(subject.Maskin, "server", "provisioned")
	fmt.Println(s, err)
	// Output: dv.maskin.evt.server.provisioned <nil>
}

func ExampleTaskEvt() {
	s, err := subject.TaskEvt("updated")
	fmt.Println(s, err)
	// Output: dv.task.evt.updated <nil>
}

func ExampleRPC() {
	s, err := subject.RPC(subject.Identitet, "introspect_token")
	fmt.Println(s, err)
	// Output: dv.rpc.identitet.introspect_token <nil>
}

func ExampleDLQ() {
	s, err := subject.DLQ(subject.Plattform, "dv.maskin.evt.server.provisioned")
	fmt.Println(s, err)
	fmt.Println(s.Original())
	// Output:
	// dv.plattform.dlq.dv.maskin.evt.server.provisioned <nil>
	// dv.maskin.evt.server.provisioned
}

func ExampleDLQMark() {
	s, err := subject.DLQMark(subject.Plattform, "l0123456789abcdef0123456789abcdef01234567")
	fmt.Println(s, err)
	// Output: dv.plattform.dlqmark.l0123456789abcdef0123456789abcdef01234567 <nil>
}

func ExampleReplay() {
	s, err := subject.Replay(subject.Plattform, "plattform__from_maskin")
	fmt.Println(s, err)
	// Output: dv.plattform.replay.plattform__from_maskin <nil>
}

func ExampleMust() {
	provision := subject.Must(subject.Cmd(subject.Maskin, "provision"))
	fmt.Println(provision.Family(), provision.Service(), provision.Action())
	// Output: command maskin provision
}

func ExampleParse() {
	s, err := subject.Parse("dv.plattform.evt.cluster.ready")
	fmt.Println(s.Family(), s.Service(), s.Entity(), s.Verb(), err)
	_, err = subject.Parse("dv.plattform.event.cluster.ready.v1")
	fmt.Println(err)
	// Output:
	// event plattform cluster ready <nil>
	// subject: subject "dv.plattform.event.cluster.ready.v1": family "event" is unknown: use one of: cmd, evt, dlq, dlqmark, replay
}

func ExampleParseService() {
	s, err := subject.ParseService("maskin")
	fmt.Println(s, err)
	_, err = subject.ParseService("maskinen")
	fmt.Println(err)
	// Output:
	// maskin <nil>
	// subject: service "maskinen": use one of: sentral, identitet, maskin, plattform, tjeneste, objekt, nett
}

func ExampleServices() {
	fmt.Println(subject.Services())
	// Output: [sentral identitet maskin plattform tjeneste objekt nett]
}

func ExampleFilter() {
	events := subject.EventsOf(subject.Maskin)
	server, _ := subject.EntityEvents(subject.Maskin, "server")
	ready, _ := subject.VerbEvents(subject.Maskin, "ready")
	s := subject.Must(subject.Evt(subject.Maskin, "server", "ready"))
	fmt.Println(events, events.Matches(s), events.Covers(server))
	fmt.Println(server, server.Matches(s), server.Overlaps(ready))
	fmt.Println(ready, ready.Matches(s), ready.Covers(server))
	// Output:
	// dv.maskin.evt.> true true
	// dv.maskin.evt.server.* true true
	// dv.maskin.evt.*.ready true false
}

func ExampleEventsOf() {
	fmt.Println(subject.EventsOf(subject.Maskin))
	// Output: dv.maskin.evt.>
}

func ExampleCommandsOf() {
	fmt.Println(subject.CommandsOf(subject.Maskin))
	// Output: dv.maskin.cmd.*
}

func ExampleTaskEvents() {
	fmt.Println(subject.TaskEvents())
	// Output: dv.task.evt.*
}

func ExampleRPCOf() {
	fmt.Println(subject.RPCOf(subject.Identitet))
	// Output: dv.rpc.identitet.*
}

func ExampleDeadLettersOf() {
	fmt.Println(subject.DeadLettersOf(subject.Plattform), subject.AllDeadLetters())
	// Output: dv.plattform.dlq.> dv.*.dlq.>
}

func ExampleMarksOf() {
	fmt.Println(subject.MarksOf(subject.Plattform), subject.ReplaysOf(subject.Plattform))
	// Output: dv.plattform.dlqmark.* dv.plattform.replay.*
}

func ExampleExactly() {
	s := subject.Must(subject.TaskEvt("failed"))
	fmt.Println(subject.Exactly(s), subject.TaskEvents().Covers(subject.Exactly(s)))
	// Output: dv.task.evt.failed true
}

func ExampleParseFilter() {
	f, err := subject.ParseFilter("dv.*.evt.*.ready")
	fmt.Println(f, err)
	_, err = subject.ParseFilter("dv.maskin.evt.ser*")
	fmt.Println(err)
	// Output:
	// dv.*.evt.*.ready <nil>
	// subject: filter "dv.maskin.evt.ser*": token "ser*" mixes a wildcard with text: * and > stand for whole tokens
}

func ExampleError() {
	_, err := subject.Evt(subject.Maskin, "Server", "")
	if e, ok := errors.AsType[*subject.Error](err); ok {
		fmt.Printf("%s %q\n", e.What, e.Input)
	}
	// Output: entity "Server"
}
