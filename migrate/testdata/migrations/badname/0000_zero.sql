create table {{schema}}.e ();
