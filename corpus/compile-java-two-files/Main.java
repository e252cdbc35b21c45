// Two source files sent together.
public class Main { public static void main(String[] args) { System.out.println(Helper.answer()); } }
