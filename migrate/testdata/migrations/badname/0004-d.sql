create table {{schema}}.d ();
