create table {{schema}}.c ();
