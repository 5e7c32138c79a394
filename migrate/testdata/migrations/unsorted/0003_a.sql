create table {{schema}}.a ();
