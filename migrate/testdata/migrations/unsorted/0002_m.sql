create table {{schema}}.m ();
