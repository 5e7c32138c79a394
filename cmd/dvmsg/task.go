package main

import (
	"context"
	"flag"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"codeberg.org/dataverket/messaging/task"
)

func taskCommands() table {
	return table{
		{
			path: "task list", summary: "list tasks and how far they are", needs: needsDatabase,
			about: `Reads the projection in the database of the service that owns the task API. The
latest news first. Who asked to cancel a task, and the error of one that failed,
are in "task show".`,
			examples: []string{
				"dvmsg task list --database postgres://sentral@db:5432/sentral",
				"dvmsg task list --state failed --since 2h --json",
			},
			make: newTaskList,
		},
		{
			path: "task show", params: []string{"ID"}, summary: "show all about one task, with its history", needs: needsDatabase,
			about: `ID is the task's, which is the id of its command. The letter of a failed task is
the one to replay: see dvmsg dlq show.`,
			examples: []string{
				"dvmsg task show 0198c7a1-5c3e-7d20-9f4b-2a6e8d0c1b01",
			},
			make: newTaskShow,
		},
		{
			path: "task follow", params: []string{"ID"}, summary: "watch a task until it ends", needs: needsDatabase, patience: followPatience,
			about: `On a terminal with a bar that moves, else a line for each change. It ends with the
task, with exit code 0 if that succeeded and 1 if it failed or was cancelled; a
failed task that is replayed goes on, follow it again. With --json the task is
printed at its end.`,
			examples: []string{
				"dvmsg task follow 0198c7a1-5c3e-7d20-9f4b-2a6e8d0c1b01 --timeout 2h",
			},
			make: newTaskFollow,
		},
	}
}

// checkTaskID adds a fault where the argument cannot be an id; a missing one is
// reported elsewhere.
func checkTaskID(c *call) string {
	text := c.arg(0)
	var id pgtype.UUID
	if text != "" && (len(text) != 36 || id.Scan(text) != nil) {
		c.fault("ID: %q is no task id, which is a whole UUID as dvmsg task list prints it", text)
	}
	return text
}

type taskList struct {
	schema       schema
	filter       task.Filter
	state, since string
}

func newTaskList(fs *flag.FlagSet) verb {
	v := &taskList{}
	v.schema.register(fs)
	fs.StringVar(&v.state, "state", "", "only tasks in these `STATES`, separated by commas: created, queued, started, succeeded, failed, cancelled")
	fs.StringVar(&v.filter.Kind, "kind", "", "only tasks of this command `TYPE`, such as maskin.server.provision.requested")
	fs.StringVar(&v.filter.Resource, "resource", "", "only tasks about this `RESOURCE`")
	fs.StringVar(&v.filter.CorrelationID, "correlation", "", "only tasks of the workflow with this correlation `ID`")
	fs.StringVar(&v.filter.TenantID, "tenant", "", "only tasks of this `TENANT`")
	fs.StringVar(&v.since, "since", "", "only tasks with news since this `TIME`: an age (90m, 2h, 3d) or 2006-01-02T15:04:05Z")
	fs.IntVar(&v.filter.Limit, "limit", defaultLimit, "at most so many, the latest `N`, up to 10000")
	return v
}

func (v *taskList) check(c *call) {
	v.schema.check(c)
	var known []string
	for _, s := range task.States() {
		known = append(known, string(s))
	}
	for s := range strings.SplitSeq(v.state, ",") {
		oneOf(c, "--state", s, known)
		if s != "" {
			v.filter.States = append(v.filter.States, task.State(s))
		}
	}
	v.filter.Since = checkTime(c, "--since", v.since)
	checkLimit(c, v.filter.Limit)
}

// taskListResult is the JSON of task list.
type taskListResult struct {
	Schema  string      `json:"schema"`
	Tasks   []task.Task `json:"tasks"`   // the latest news first
	Limited bool        `json:"limited"` // as many as --limit allows: there may be more
}

func (v *taskList) run(ctx context.Context, c *call) error {
	r := taskListResult{Schema: v.schema.name, Tasks: []task.Task{}}
	err := c.withDatabase(ctx, func(pool *pgxpool.Pool) error {
		found, err := task.List(ctx, pool, v.schema.name, v.filter)
		r.Tasks = append(r.Tasks, found...)
		return err
	})
	if err != nil {
		return err
	}
	r.Limited = len(r.Tasks) == v.filter.Limit
	return c.print(r, r.text)
}

func (r taskListResult) text(p *page) {
	if len(r.Tasks) == 0 {
		p.line("no task matches")
		return
	}
	rows := make([][]string, 0, len(r.Tasks))
	for _, t := range r.Tasks {
		rows = append(rows, []string{
			t.ID, age(max(0, p.now.Sub(t.UpdatedAt))), stateText(t), percentText(t), t.Kind, t.Resource,
			shorten(clean(t.Title), titleWidth), shorten(clean(newsOf(t)), causeWidth),
		})
	}
	p.table([]string{"TASK", "NEWS", "STATE", "DONE", "KIND", "RESOURCE", "TITLE", "MESSAGE"}, rows)
	if r.Limited {
		p.gap()
		p.line("there may be more; --limit N lists up to 10000")
	}
}

// titleWidth keeps a title beside the rest of its line.
const titleWidth = 40

// stateText is the state, and what is special about it.
func stateText(t task.Task) string {
	text := string(t.State)
	switch {
	case t.State == task.StateUnknown:
		text = "not known"
	case t.Attempt > 1:
		text += fmt.Sprintf(" (attempt %d)", t.Attempt)
	}
	if t.Cancel != nil && !t.State.Ended() {
		text += ", to be cancelled"
	}
	return text
}

// percentText is how far a task is, "" if nobody said.
func percentText(t task.Task) string {
	if t.Percent == nil {
		return ""
	}
	return strconv.Itoa(*t.Percent) + "%"
}

// newsOf is the last that was said for people: why it failed, or how far it is.
func newsOf(t task.Task) string {
	if t.Error != nil {
		return t.Error.Text
	}
	return t.Message
}

type taskShow struct {
	schema schema
	id     string
}

func newTaskShow(fs *flag.FlagSet) verb {
	v := &taskShow{}
	v.schema.register(fs)
	return v
}

func (v *taskShow) check(c *call) {
	v.schema.check(c)
	v.id = checkTaskID(c)
}

// taskShowResult is the JSON of task show.
type taskShowResult struct {
	Task    task.Task    `json:"task"`
	History []task.Entry `json:"history"` // in the order of the versions, without progress
}

func (v *taskShow) run(ctx context.Context, c *call) error {
	r := taskShowResult{History: []task.Entry{}}
	err := c.withDatabase(ctx, func(pool *pgxpool.Pool) (err error) {
		if r.Task, err = task.Get(ctx, pool, v.schema.name, v.id); err != nil {
			return err
		}
		history, err := task.History(ctx, pool, v.schema.name, v.id)
		r.History = append(r.History, history...)
		return err
	})
	if err != nil {
		return err
	}
	return c.print(r, r.text)
}

func (r taskShowResult) text(p *page) {
	t := r.Task
	p.task(t)
	if e := t.Error; e != nil {
		p.list([]labelled{
			{"error", e.Text}, {"class", string(e.Class)}, {"code", e.Code}, {"letter", e.LetterID},
		})
	}
	if t.Cancel != nil {
		p.list([]labelled{{"to cancel", fmt.Sprintf("%s: %s", t.Cancel.By, t.Cancel.Reason)}})
	}
	p.gap()
	rows := make([][]string, 0, len(r.History))
	for _, e := range r.History {
		rows = append(rows, []string{stamp(e.At), string(e.Verb), strconv.FormatInt(e.Data.Version, 10), strconv.Itoa(e.Data.Attempt), e.Source, e.EventID, shorten(clean(saidBy(e.Data)), causeWidth)})
	}
	p.table([]string{"AT", "EVENT", "VERSION", "ATTEMPT", "SERVICE", "ID", "MESSAGE"}, rows)
	if e := t.Error; t.State == task.StateFailed && e != nil && e.LetterID != "" {
		p.gap()
		p.line("next: dvmsg dlq show %s", e.LetterID)
	}
}

// task lists the properties of a task.
func (p *page) task(t task.Task) {
	result := ""
	if t.Result != nil {
		result = strings.TrimSpace(t.Result.URI + " " + t.Result.ObjectID)
	}
	p.list([]labelled{
		{"task", t.ID}, {"state", stateText(t)}, {"title", t.Title}, {"kind", t.Kind}, {"resource", t.Resource},
		{"done", percentText(t)}, {"message", t.Message}, {"result", result}, {"created by", string(t.CreatedBy)},
		{"tenant", t.TenantID}, {"project", t.ProjectID}, {"environment", t.EnvironmentID}, {"datacenter", t.DatacenterID},
		{"correlation", t.CorrelationID}, {"created", p.when(t.CreatedAt)}, {"started", p.when(t.StartedAt)},
		{"finished", p.when(t.FinishedAt)}, {"last news", p.when(t.UpdatedAt)},
	})
}

// saidBy is what an event says for people.
func saidBy(e task.EventV1) string {
	switch {
	case e.Error != nil:
		return e.Error.Text
	case e.Cancel != nil:
		return string(e.Cancel.By) + ": " + e.Cancel.Reason
	case e.Title != "":
		return e.Title
	}
	return e.Message
}
