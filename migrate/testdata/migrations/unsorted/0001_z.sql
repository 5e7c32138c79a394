create table {{schema}}.z ();
