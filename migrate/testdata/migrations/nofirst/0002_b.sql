create table {{schema}}.b ();
