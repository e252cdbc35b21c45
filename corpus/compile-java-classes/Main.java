// Nested, anonymous and second top-level classes all reach the run.
interface Shape { int area(); }
class Square implements Shape { public int area() { return 4; } }
public class Main {
    static class Inner { static class Deeper { int n = 3; } }
    enum Side { LEFT, RIGHT }
    record Pair(int a, int b) { }
    public static void main(String[] args) {
        Shape anonymous = new Shape() { public int area() { return 5; } };
        System.out.println(new Square().area() + anonymous.area() + new Inner.Deeper().n + Side.values().length + new Pair(1, 2).b());
    }
}
