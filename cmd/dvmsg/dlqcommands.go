package main

import (
	"flag"
	"time"
)

// manyPatience bounds what acts on many letters, besides what replays take at their
// rate: their durable may take its time.
const manyPatience = 5 * time.Minute

func dlqCommands() table {
	return table{
		{
			path: "dlq list", summary: "list dead letters that wait for a decision", needs: needsNATS,
			about: `Oldest first, by the time of the last failure, without data. Without --state it
lists what is not closed: open, claimed, replayed and unknown letters; --state any
lists all. --batch tells what became of the letters of one replay or discard. Ids
are cut where the beginning is unambiguous; all other commands accept them so.`,
			examples: []string{
				"dvmsg dlq list --service plattform --since 2h",
				"dvmsg dlq list --correlation 0197a0b2-... --state any --json",
				"dvmsg dlq list --batch 0198d2c4-...",
			},
			make: newDLQList,
		},
		{
			path: "dlq groups", summary: "count what failed alike: where to look first", needs: needsNATS,
			about: `Letters are alike if their class, durable, type and error agree, but for ids,
numbers, quoted values, addresses and times in the error, which # stands for. The
largest group first. Its fingerprint selects it in all other commands.`,
			examples: []string{
				"dvmsg dlq groups --since 2h",
				"dvmsg dlq groups --durable plattform__from_maskin --state any --json",
			},
			make: newDLQGroups,
		},
		{
			path: "dlq show", params: []string{"ID"}, summary: "show all about one letter, with its history", needs: needsNATS,
			about: `ID is a letter's id or the beginning of one, at least 4 digits. The payload is
printed only with --data: it is what the platform's users wrote. In JSON it is
base64, byte by byte as it was published.`,
			examples: []string{
				"dvmsg dlq show l3f9a2c17b",
				"dvmsg dlq show l3f9a2c17b --data --json | jq -r .data | base64 -d",
			},
			make: newDLQShow,
		},
		{
			path: "dlq replay", params: []string{"[ID...]"}, summary: "hand messages to their durables once more", needs: needsNATS, patience: manyPatience,
			about: `The letters are those with the IDs, or all that the flags select, oldest message
first. Only the durable that gave up receives them, with the envelope unchanged;
its inbox keeps the effect from being applied twice. Who and why are stored with
the letter as long as it is kept. Of two operators one replays a letter, the other
is told who did. After an interruption, do it again: what is out already is passed
over. A letter whose replay is outstanding needs --again, one that is closed is
not replayed. --data @FILE replays one letter with other data, a JSON object; with
--dry-run it shows the difference.`,
			examples: []string{
				`dvmsg dlq replay l3f9a2c17b --by operator:ola --reason "hostname fixed, DV-412"`,
				`dvmsg dlq replay --fingerprint 5e1c77a0b2d4 --by operator:ola --reason "hostname fixed, DV-412" --dry-run`,
				`dvmsg dlq replay --fingerprint 5e1c77a0b2d4 --by operator:ola --reason "hostname fixed, DV-412" --rate 20 --wait`,
				`dvmsg dlq replay l3f9a2c17b --data @fixed.json --by operator:ola --reason "hostname corrected, DV-412" --dry-run`,
			},
			make: func(fs *flag.FlagSet) verb { return newDLQAct(fs, replayLetters) },
		},
		{
			path: "dlq discard", params: []string{"[ID...]"}, summary: "give messages up: close their letters", needs: needsNATS, patience: manyPatience,
			about: `The letters are those with the IDs, or all that the flags select. They are closed,
can be restored, and are removed by dlq purge after a while. Letters that cannot be
replayed are closed so too. A failure that comes later opens its letter again.`,
			examples: []string{
				`dvmsg dlq discard l3f9a2c17b --by operator:ola --reason "server is gone, DV-412"`,
				`dvmsg dlq discard --fingerprint 5e1c77a0b2d4 --by operator:ola --reason "servers are gone, DV-412" --dry-run`,
			},
			make: func(fs *flag.FlagSet) verb { return newDLQAct(fs, discardLetters) },
		},
		{
			path: "dlq restore", params: []string{"[ID...]"}, summary: "open discarded letters again", needs: needsNATS, patience: manyPatience,
			about: "The letters are those with the IDs, or all discarded ones that the flags select.",
			examples: []string{
				`dvmsg dlq restore l3f9a2c17b --by operator:ola --reason "wrong server, DV-412"`,
				`dvmsg dlq restore --batch 0198d2c4-... --by operator:ola --reason "wrong group, DV-412"`,
			},
			make: func(fs *flag.FlagSet) verb { return newDLQAct(fs, restoreLetters) },
		},
		{
			path: "dlq purge", summary: "remove letters that were closed long ago", needs: needsNATS, patience: manyPatience,
			about: `Resolved and discarded letters, with their marks and replays. What is not closed
is never removed, however old it is. An interrupted purge is finished by the next.
Nothing of a letter is left, nor who decided about it: who purges and why is said
on the standard error output, for your log.`,
			examples: []string{
				`dvmsg dlq purge --resolved --by operator:ola --reason "monthly, DV-7" --dry-run`,
				`dvmsg dlq purge --resolved --older-than 30d --by operator:ola --reason "monthly, DV-7"`,
			},
			make: newDLQPurge,
		},
	}
}
